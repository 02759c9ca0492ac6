//! One generic handler per verb, over any resource of the catalogue.
//!
//! Handlers know no kind: what a kind does beside being stored is its behaviour (in `krate-api`), its
//! admission plugins, and its registry hook ([`hook`]).

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod hook;
pub(crate) mod list;
pub(crate) mod meta;
pub(crate) mod patch;
pub(crate) mod select;
pub(crate) mod update;
pub(crate) mod watch;
