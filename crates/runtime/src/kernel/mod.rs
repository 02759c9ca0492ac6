//! The kernel calls that no safe library offers, each as a small safe function.
//!
//! Everything else in this crate is free of `unsafe`.
#![allow(unsafe_code)]

pub mod mount;
pub mod process;
pub mod socket;
pub mod xattr;
