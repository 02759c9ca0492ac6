//! Patches as kubectl sends them, directive by directive, and properties.

use super::*;
use krate_api::schema;
use proptest::prelude::*;
use serde_json::json;

fn patched(group: &str, kind: &str, doc: &Value, patch: &Value) -> Result<Value, PatchError> {
    let ty = schema::of_kind(group, "v1", kind).unwrap();
    strategic_merge_patch(ty, doc.clone(), patch.to_string().as_bytes())
}

fn pod(containers: Value) -> Value {
    json!({"spec": {"containers": containers}})
}

#[track_caller]
fn containers(doc: Value, patch: Value, want: Value) {
    let got = patched("", "Pod", &pod(doc), &json!({"spec": patch})).unwrap();
    assert_eq!(got, pod(want));
}

#[test]
fn kubectl_set_image_changes_one_container() {
    let template = |image: &str| {
        json!({"spec": {"replicas": 1, "template": {"spec": {"containers": [
            {"name": "side", "image": "b:1", "env": [{"name": "A", "value": "1"}]},
            {"name": "nginx", "image": image, "resources": {}}]}}}})
    };
    let patch = json!({"spec": {"template": {"spec": {
        "$setElementOrder/containers": [{"name": "side"}, {"name": "nginx"}],
        "containers": [{"name": "nginx", "image": "nginx:2"}]}}}});
    assert_eq!(patched("apps", "Deployment", &template("nginx:1"), &patch).unwrap(), template("nginx:2"));
}

#[test]
fn items_are_merged_added_and_deleted_by_key() {
    containers(
        json!([{"name": "a", "image": "1"}, {"name": "b"}]),
        json!({"containers": [{"name": "a", "tty": true}, {"name": "c", "image": "3", "stdin": null}]}),
        json!([{"name": "a", "image": "1", "tty": true}, {"name": "c", "image": "3"}, {"name": "b"}]),
    );
    containers(
        json!([{"name": "a"}, {"name": "b"}]),
        json!({"containers": [{"name": "a", "$patch": "delete"}]}),
        json!([{"name": "b"}]),
    );
    containers(
        json!([{"name": "a"}, {"name": "b"}]),
        json!({"containers": [{"$patch": "replace"}, {"name": "c"}]}),
        json!([{"name": "c"}]),
    );
}

#[test]
fn lists_inside_items_merge_by_their_own_keys() {
    containers(
        json!([{"name": "a", "ports": [{"containerPort": 80, "name": "x"}], "args": ["1"]}]),
        json!({"containers": [{"name": "a", "args": ["2"], "ports": [{"containerPort": 81}, {"containerPort": 80, "name": "y"}]}]}),
        json!([{"name": "a", "ports": [{"containerPort": 81}, {"containerPort": 80, "name": "y"}], "args": ["2"]}]),
    );
}

#[test]
fn orders_are_set_and_the_servers_own_items_keep_their_place() {
    containers(
        json!([{"name": "a"}, {"name": "server"}, {"name": "b"}]),
        json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}, {"name": "c"}], "containers": [{"name": "c"}]}),
        json!([{"name": "server"}, {"name": "b"}, {"name": "a"}, {"name": "c"}]),
    );
    containers(
        json!([{"name": "a"}, {"name": "b"}]),
        json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
        json!([{"name": "b"}, {"name": "a"}]),
    );
    let wrong =
        json!({"spec": {"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "a"}]}});
    assert!(patched("", "Pod", &pod(json!([{"name": "a"}])), &wrong).is_err());
}

#[test]
fn an_edit_that_deletes_one_item_and_orders_the_rest() {
    containers(
        json!([{"name": "a"}, {"name": "b"}, {"name": "c"}]),
        json!({"$setElementOrder/containers": [{"name": "a"}, {"name": "c"}], "containers": [{"$patch": "delete", "name": "b"}]}),
        json!([{"name": "a"}, {"name": "c"}]),
    );
}

#[test]
fn lists_of_scalars_are_sets() {
    let doc = json!({"metadata": {"finalizers": ["a", "b"]}});
    for (patch, want) in [
        (json!({"finalizers": ["c", "a"]}), json!(["c", "a", "b"])),
        (json!({"$deleteFromPrimitiveList/finalizers": ["a", "z"]}), json!(["b"])),
        (
            json!({"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["c", "b"], "finalizers": ["c"]}),
            json!(["c", "b"]),
        ),
        (json!({"finalizers": null}), Value::Null),
    ] {
        let got = patched("", "Pod", &doc, &json!({"metadata": patch})).unwrap();
        assert_eq!(got["metadata"].get("finalizers").unwrap_or(&Value::Null), &want, "{patch}");
    }
}

#[test]
fn retain_keys_switches_a_strategy() {
    let doc = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(
        patched("apps", "Deployment", &doc, &patch).unwrap(),
        json!({"spec": {"strategy": {"type": "Recreate"}}})
    );
    let wrong = json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}});
    let error = patched("apps", "Deployment", &doc, &wrong).unwrap_err();
    assert_eq!(error, PatchError::BadRequest("invalid patch format of retainKeys".into()));
}

#[test]
fn volumes_are_switched_by_retain_keys_within_a_list() {
    let doc = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
    let patch = json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}});
    let want = json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}});
    assert_eq!(patched("", "Pod", &doc, &patch).unwrap(), want);
    // The same patch on an object without the list leaves no directive behind.
    assert_eq!(patched("", "Pod", &json!({"spec": {}}), &patch).unwrap(), want);
}

#[test]
fn objects_are_replaced_emptied_and_lose_their_nulls() {
    let doc = json!({"metadata": {"labels": {"a": "1", "b": "2"}, "annotations": {"x": "y"}}});
    for (patch, want) in [
        (json!({"labels": {"a": null, "c": "3"}}), json!({"b": "2", "c": "3"})),
        (json!({"labels": {"$patch": "replace", "c": "3"}}), json!({"c": "3"})),
        (json!({"labels": {"$patch": "delete"}}), json!({})),
        (json!({"labels": null}), Value::Null),
    ] {
        let got = patched("", "Pod", &doc, &json!({"metadata": patch})).unwrap();
        assert_eq!(got["metadata"].get("labels").unwrap_or(&Value::Null), &want, "{patch}");
        assert_eq!(got["metadata"]["annotations"], json!({"x": "y"}));
    }
}

#[test]
fn services_merge_ports_by_port() {
    let doc = json!({"spec": {"ports": [{"port": 80, "targetPort": 80, "nodePort": 30000}], "selector": {"a": "b"}}});
    let patch = json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}]}});
    let want = json!({"spec": {"ports": [{"port": 80, "targetPort": 8080, "nodePort": 30000}], "selector": {"a": "b"}}});
    assert_eq!(patched("", "Service", &doc, &patch).unwrap(), want);
}

#[test]
fn faults_read_as_the_original_writes_them() {
    let doc = json!({"metadata": {"finalizers": ["a"]}, "spec": {"containers": [{"name": "a"}]}});
    let error = |patch: Value| patched("", "Pod", &doc, &patch).unwrap_err().to_string();
    assert_eq!(
        error(json!({"spec": {"containers": [{"image": "x"}]}})),
        "map: map[image:x] does not contain declared merge key: name"
    );
    assert_eq!(error(json!({"spec": {"$patch": "grow"}})), "unknown patch type: grow in map: map[]");
    assert_eq!(
        error(json!({"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}})),
        "invalid patch format of primitive list"
    );
    assert_eq!(error(json!([])), "invalid JSON document");
}

fn list_of_names() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::btree_set("[a-f]", 0..6)
        .prop_shuffle_names()
        .prop_map(|names| names.into_iter().map(|n| json!({"name": n, "image": "i"})).collect())
}

trait Shuffled: Strategy<Value = std::collections::BTreeSet<String>> + Sized {
    fn prop_shuffle_names(self) -> impl Strategy<Value = Vec<String>> {
        self.prop_map(|set| set.into_iter().collect::<Vec<_>>()).prop_shuffle()
    }
}

impl<S: Strategy<Value = std::collections::BTreeSet<String>>> Shuffled for S {}

proptest! {
    #[test]
    fn a_patch_without_deletions_is_idempotent(live in list_of_names(), patch in list_of_names()) {
        let patch = json!({"spec": {"containers": patch}});
        let once = patched("", "Pod", &pod(Value::Array(live)), &patch).unwrap();
        prop_assert_eq!(patched("", "Pod", &once, &patch).unwrap(), once);
    }

    #[test]
    fn no_item_is_lost_or_doubled_and_the_order_is_that_of_the_patch(live in list_of_names(), order in list_of_names()) {
        let patch = json!({"spec": {"$setElementOrder/containers": order, "containers": order}});
        let got = patched("", "Pod", &pod(Value::Array(live.clone())), &patch).unwrap();
        let names = |list: &[Value]| list.iter().map(|i| i["name"].to_string()).collect::<Vec<_>>();
        let got = got["spec"]["containers"].as_array().cloned().unwrap_or_default();
        let mut want = names(&live);
        want.extend(names(&order).into_iter().filter(|n| !names(&live).contains(n)));
        let (mut a, mut b) = (names(&got), want);
        let ordered: Vec<String> = a.iter().filter(|n| names(&order).contains(n)).cloned().collect();
        prop_assert_eq!(ordered, names(&order));
        a.sort();
        b.sort();
        prop_assert_eq!(a, b);
    }
}
