//! What lists and watches show, through the in-process transport.

use crate::common::{admin, config_map, config_maps, server};
use futures::StreamExt as _;
use krate_api::meta::DeleteOptions;
use krate_client::{Options, PatchKind, Reply, Request, Verb, WatchEvent, WatchStream};
use serde_json::json;
use std::sync::Arc;

type ConfigMap = krate_api::types::core::v1::ConfigMap;

async fn next(stream: &mut WatchStream) -> String {
    match stream.next().await.unwrap() {
        Ok(WatchEvent::Added(o)) => format!("ADDED {}", o.view.name),
        Ok(WatchEvent::Modified(o)) => format!("MODIFIED {}", o.view.name),
        Ok(WatchEvent::Deleted(o)) => format!("DELETED {}", o.view.name),
        Ok(WatchEvent::Bookmark { initial_end, .. }) => format!("BOOKMARK {initial_end}"),
        Err(status) => format!("ERROR {}", status.message()),
    }
}

async fn list(transport: &Arc<dyn krate_client::Transport>, options: Options) -> (Vec<String>, u64, String) {
    let mut request = Request::of::<ConfigMap>(Verb::List, "default", "");
    request.options = options;
    match transport.send(request).await.unwrap() {
        Reply::List { items, revision, continue_token } => {
            (items.iter().map(|i| i.view.name.clone()).collect(), revision, continue_token)
        }
        _ => panic!("a list"),
    }
}

#[tokio::test]
async fn pages_show_one_instant() {
    let server = server().await;
    let transport = admin(&server);
    let maps = config_maps(&transport);
    for name in ["a", "b", "c", "d", "e"] {
        maps.create(config_map("default", name)).await.unwrap();
    }
    let (names, revision, token) = list(&transport, Options { limit: 2, ..Default::default() }).await;
    assert_eq!(names, ["a", "b"]);
    maps.delete("default", "d", DeleteOptions::default()).await.unwrap();
    let next = Options { limit: 2, continue_token: token, ..Default::default() };
    let (names, second, token) = list(&transport, next).await;
    assert_eq!((names, second), (vec!["c".to_owned(), "d".to_owned()], revision));
    let next = Options { limit: 2, continue_token: token, ..Default::default() };
    let (names, _, token) = list(&transport, next).await;
    assert_eq!((names, token), (vec!["e".to_owned()], String::new()));
    let exact = Options {
        resource_version: revision.to_string(),
        resource_version_match: "Exact".to_owned(),
        ..Default::default()
    };
    assert_eq!(list(&transport, exact).await.0.len(), 5);
    assert_eq!(list(&transport, Options::default()).await.0.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_is_too_old_says_how_to_go_on() {
    let server =
        crate::common::server_at(krate_base::Clock::starting_at(krate_base::Timestamp::UNIX_EPOCH)).await;
    let transport = admin(&server);
    let maps = config_maps(&transport);
    for name in ["a", "b", "c"] {
        maps.create(config_map("default", name)).await.unwrap();
    }
    let (names, revision, token) = list(&transport, Options { limit: 2, ..Default::default() }).await;
    assert_eq!(names, ["a", "b"]);
    maps.delete("default", "c", DeleteOptions::default()).await.unwrap();
    maps.create(config_map("default", "d")).await.unwrap();
    // Nothing is kept longer than the original's database keeps it.
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    let mut request = Request::of::<ConfigMap>(Verb::List, "default", "");
    request.options = Options { limit: 2, continue_token: token, ..Default::default() };
    let status = transport.send(request).await.err().unwrap();
    assert_eq!((status.code(), status.0.reason.as_deref()), (410, Some("Expired")));
    let token = status.0.metadata.continue_.clone().unwrap();
    let next = Options { limit: 2, continue_token: token, ..Default::default() };
    let (names, second, token) = list(&transport, next).await;
    assert_eq!((names, token), (vec!["d".to_owned()], String::new()));
    assert!(second > revision);
}

#[tokio::test]
async fn a_future_version_is_too_large() {
    let server = server().await;
    let mut request = Request::of::<ConfigMap>(Verb::List, "default", "");
    request.options.resource_version = "99999".to_owned();
    let error = admin(&server).send(request).await.unwrap_err();
    assert_eq!(error.code(), 504);
    assert!(error.message().starts_with("Timeout: Too large resource version: 99999, current: "));
}

#[tokio::test]
async fn a_watch_shows_what_is_there_and_what_changes() {
    let server = server().await;
    let maps = config_maps(&admin(&server));
    maps.create(config_map("default", "a")).await.unwrap();
    let mut watch = maps.watch("default", Options::default()).await.unwrap();
    assert_eq!(next(&mut watch).await, "ADDED a");
    let made = maps.create(config_map("default", "b")).await.unwrap();
    maps.create(config_map("kube-system", "other")).await.unwrap();
    maps.patch("default", "b", PatchKind::Merge, json!({"data": {"k": "v"}}).to_string()).await.unwrap();
    maps.delete("default", "b", DeleteOptions::default()).await.unwrap();
    assert_eq!(next(&mut watch).await, "ADDED b");
    assert_eq!(next(&mut watch).await, "MODIFIED b");
    match watch.next().await.unwrap().unwrap() {
        WatchEvent::Deleted(last) => {
            let typed = last.typed::<ConfigMap>().unwrap();
            assert_eq!(typed.data.as_ref().unwrap()["k"], "v");
            assert_eq!(typed.metadata.resource_version.as_deref(), Some(last.revision.to_string().as_str()));
            assert!(last.revision > made.metadata.resource_version.as_deref().unwrap().parse().unwrap());
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_watch_from_a_version_shows_what_came_after() {
    let server = server().await;
    let maps = config_maps(&admin(&server));
    let a = maps.create(config_map("default", "a")).await.unwrap();
    maps.create(config_map("default", "b")).await.unwrap();
    let from =
        Options { resource_version: a.metadata.resource_version.clone().unwrap(), ..Default::default() };
    let mut watch = maps.watch("default", from).await.unwrap();
    assert_eq!(next(&mut watch).await, "ADDED b");
}

#[tokio::test]
async fn selectors_add_and_delete_what_begins_and_ceases_to_match() {
    let server = server().await;
    let maps = config_maps(&admin(&server));
    let options = Options { label_selector: "l=x".to_owned(), ..Default::default() };
    let mut watch = maps.watch("default", options).await.unwrap();
    maps.create(config_map("default", "a")).await.unwrap();
    for label in [json!("x"), json!("x"), json!("y"), json!("x")] {
        let patch = json!({"metadata": {"labels": {"l": label}}, "data": {"n": label}});
        maps.patch("default", "a", PatchKind::Merge, patch.to_string()).await.unwrap();
    }
    maps.patch("default", "a", PatchKind::Merge, json!({"data": {"m": "1"}}).to_string()).await.unwrap();
    assert_eq!(next(&mut watch).await, "ADDED a");
    match watch.next().await.unwrap().unwrap() {
        // The last state that matched, with the revision of the change.
        WatchEvent::Deleted(last) => {
            let typed = last.typed::<ConfigMap>().unwrap();
            assert_eq!(typed.metadata.labels.as_ref().unwrap()["l"], "x");
            assert_eq!(typed.metadata.resource_version.as_deref(), Some(last.revision.to_string().as_str()));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(next(&mut watch).await, "ADDED a");
    assert_eq!(next(&mut watch).await, "MODIFIED a");
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let server = server().await;
    let maps = config_maps(&admin(&server));
    maps.create(config_map("default", "a")).await.unwrap();
    let options = Options {
        send_initial_events: Some(true),
        resource_version_match: "NotOlderThan".to_owned(),
        allow_watch_bookmarks: true,
        ..Default::default()
    };
    let mut watch = maps.watch("default", options).await.unwrap();
    assert_eq!(next(&mut watch).await, "ADDED a");
    assert_eq!(next(&mut watch).await, "BOOKMARK true");
    let wrong = Options { send_initial_events: Some(true), ..Default::default() };
    let Err(error) = maps.watch("default", wrong).await else { panic!("refused") };
    assert_eq!(error.code(), 422);
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_at_its_timeout_with_its_position() {
    let server =
        crate::common::server_at(krate_base::Clock::starting_at(krate_base::Timestamp::UNIX_EPOCH)).await;
    let maps = config_maps(&admin(&server));
    let options = Options { timeout_seconds: Some(5), allow_watch_bookmarks: true, ..Default::default() };
    let mut watch = maps.watch("default", options).await.unwrap();
    maps.create(config_map("kube-system", "elsewhere")).await.unwrap();
    assert_eq!(next(&mut watch).await, "BOOKMARK false");
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn an_unknown_field_label_is_refused() {
    let server = server().await;
    let mut request = Request::of::<ConfigMap>(Verb::List, "default", "");
    request.options.field_selector = "spec.x=y".to_owned();
    let error = admin(&server).send(request).await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (400, "\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    );
}
