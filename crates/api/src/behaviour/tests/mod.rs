//! Kinds by example: one valid object each, and what changes to it bring.

mod config;
mod network;
mod pods;
mod policy;
mod storage;
mod workloads;

use crate::Catalogue;

#[test]
fn every_row_has_the_behaviour_of_its_own_kind() {
    for row in Catalogue::builtin().iter() {
        let mut object = (row.codec.empty)();
        row.behaviour.default(&mut *object);
        row.behaviour.prepare_create(&mut *object);
        let old = object.boxed_clone();
        row.behaviour.prepare_update(&mut *object, &*old);
        row.behaviour.prepare_subresource("status", &mut *object, &*old);
        assert!(object.equals(&*old), "{row:?}: an update that changes nothing changes nothing");
        let _ = row.behaviour.validate(&*object);
        let _ = row.behaviour.validate_update("", &*object, &*old);
        let _ = row.behaviour.warnings(&*object, Some(&*old));
        let _ = row.behaviour.fields(&*object);
    }
}

#[test]
fn defaults_are_stable() {
    for row in Catalogue::builtin().iter() {
        let mut object = (row.codec.empty)();
        row.behaviour.default(&mut *object);
        let once = object.boxed_clone();
        row.behaviour.default(&mut *object);
        assert!(object.equals(&*once), "{row:?}: defaulting twice is defaulting once");
    }
}
