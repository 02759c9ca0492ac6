//! The server over TLS on loopback.

use crate::common::{bearer, connect, get, remote, send, serve, server};
use krate_client::{Options, Transport as _};
use serde_json::json;

#[tokio::test]
async fn a_client_certificate_is_an_identity() {
    let server = server().await;
    let served = serve(&server).await;
    let admin = remote(&served, &server, "admin", "system:masters");
    let (code, list) = get(&admin, "/api/v1/namespaces").await;
    assert_eq!((code, list["kind"].as_str()), (200, Some("NamespaceList")));
    let jane = remote(&served, &server, "jane", "");
    let (code, status) = get(&jane, "/api/v1/namespaces/default/pods").await;
    assert_eq!(code, 403);
    assert_eq!(
        status["message"],
        "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
}

#[tokio::test]
async fn a_bad_token_is_unauthorized_and_no_token_is_anonymous() {
    let server = server().await;
    let served = serve(&server).await;
    let (code, status) = get(&bearer(&served, "nonsense"), "/api/v1/namespaces").await;
    assert_eq!((code, status["message"].as_str()), (401, Some("Unauthorized")));
    let (code, status) = get(&bearer(&served, ""), "/api/v1/namespaces").await;
    assert_eq!(code, 403);
    assert_eq!(
        status["message"],
        "namespaces is forbidden: User \"system:anonymous\" cannot list resource \"namespaces\" in API group \"\" \
         at the cluster scope"
    );
}

#[tokio::test]
async fn objects_travel_over_the_wire() {
    let server = server().await;
    let served = serve(&server).await;
    let admin = remote(&served, &server, "admin", "system:masters");
    let base = "/api/v1/namespaces/default/configmaps";
    let body = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    let (code, made) = send(&admin, "POST", base, "application/json", body.clone()).await;
    assert_eq!((code, made["kind"].as_str()), (201, Some("ConfigMap")), "{made}");
    let (code, again) = send(&admin, "POST", base, "application/json", body).await;
    assert_eq!((code, again["reason"].as_str()), (409, Some("AlreadyExists")));
    let wrong = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "b"}});
    let (code, _) = send(&admin, "POST", base, "application/json", wrong).await;
    assert_eq!(code, 400);
    let yaml = "metadata:\n  name: yaml\ndata:\n  k: \"yes\"\n";
    let (code, made) =
        admin.raw(http::Method::POST, base, Some("application/yaml"), yaml.to_owned().into()).await.unwrap();
    assert_eq!(code.as_u16(), 201, "{made:?}");
    let patch = json!({"data": {"k": "w"}});
    let (code, patched) =
        send(&admin, "PATCH", &format!("{base}/a"), "application/merge-patch+json", patch).await;
    assert_eq!((code, patched["data"]["k"].as_str()), (200, Some("w")));
    let (code, _) = send(&admin, "PATCH", &format!("{base}/a"), "text/plain", json!({})).await;
    assert_eq!(code, 415);
    let (code, gone) = send(&admin, "DELETE", &format!("{base}/a"), "application/json", json!({})).await;
    assert_eq!((code, gone["status"].as_str()), (200, Some("Success")));
    assert_eq!(gone["details"]["kind"], "configmaps");
}

#[tokio::test]
async fn a_watch_flushes_its_head_and_its_events() {
    use http_body_util::BodyExt as _;
    let server = server().await;
    let served = serve(&server).await;
    let admin = remote(&served, &server, "admin", "system:masters");
    let path = "/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=1";
    let mut response = admin.open(http::Method::GET, path, None, Default::default()).await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    let body = json!({"metadata": {"name": "a"}});
    send(&admin, "POST", "/api/v1/namespaces/default/configmaps", "application/json", body).await;
    let frame = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    let event: serde_json::Value = serde_json::from_slice(&frame).unwrap();
    assert_eq!(
        (event["type"].as_str(), event["object"]["metadata"]["name"].as_str()),
        (Some("ADDED"), Some("a"))
    );
}

#[tokio::test]
async fn the_end_of_initial_events_carries_the_list_to_make_of_them() {
    use base64::Engine as _;
    use http_body_util::BodyExt as _;
    let server = server().await;
    let served = serve(&server).await;
    let pair = server.authority().client("admin", &["system:masters"]).unwrap();
    let path = "/api/v1/namespaces/default/pods?watch=1&sendInitialEvents=true&allowWatchBookmarks=true\
                &resourceVersionMatch=NotOlderThan";
    let cases = [
        ("application/json", "Pod", ("PodList", "v1")),
        (
            "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
            "PartialObjectMetadata",
            ("PartialObjectMetadataList", "meta.k8s.io/v1"),
        ),
    ];
    for (accept, kind, (list, version)) in cases {
        let mut sender = crate::common::connect(&served, &pair).await;
        let request = http::Request::get(path).header("host", "localhost").header("accept", accept);
        let request = request.body(http_body_util::Full::new(bytes::Bytes::new())).unwrap();
        let mut response = sender.send_request(request).await.unwrap();
        let frame = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        let event: serde_json::Value = serde_json::from_slice(&frame).unwrap();
        assert_eq!(
            (event["type"].as_str(), event["object"]["kind"].as_str()),
            (Some("BOOKMARK"), Some(kind))
        );
        let annotations = &event["object"]["metadata"]["annotations"];
        assert_eq!(annotations["k8s.io/initial-events-end"], "true");
        let encoded = annotations["kubernetes.io/initial-events-list-blueprint"].as_str().unwrap();
        let blueprint = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
        let blueprint: serde_json::Value = serde_json::from_slice(&blueprint).unwrap();
        let expected = json!({"kind": list, "apiVersion": version, "metadata": {}, "items": null});
        assert_eq!(blueprint, expected);
    }
}

#[tokio::test]
async fn events_that_are_there_at_once_go_out_together_and_in_order() {
    use http_body_util::BodyExt as _;
    const MANY: usize = 300;
    let server = server().await;
    let served = serve(&server).await;
    let admin = remote(&served, &server, "admin", "system:masters");
    let maps = "/api/v1/namespaces/default/configmaps";
    for i in 0..MANY {
        let body = json!({"metadata": {"name": format!("c-{i:03}")}, "data": {"filler": "x".repeat(200)}});
        send(&admin, "POST", maps, "application/json", body).await;
    }
    // what was there before, and with selectors, and what came since: three ways to the same events
    for query in ["resourceVersion=0", "resourceVersion=0&labelSelector=a!=b", "resourceVersion=1"] {
        let path = format!("{maps}?watch=1&{query}");
        let mut response = admin.open(http::Method::GET, &path, None, Default::default()).await.unwrap();
        let (mut text, mut pieces) = (String::new(), 0);
        while text.matches('\n').count() < MANY {
            let frame = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
            text.push_str(std::str::from_utf8(&frame).unwrap());
            pieces += 1;
        }
        let name = |line: &str| -> String {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(event["type"], "ADDED");
            event["object"]["metadata"]["name"].as_str().unwrap().to_owned()
        };
        let names: Vec<String> = text.lines().map(name).collect();
        assert_eq!(names, (0..MANY).map(|i| format!("c-{i:03}")).collect::<Vec<_>>(), "{query}");
        assert!(pieces < MANY / 2, "{query}: {pieces} pieces");
    }
}

#[tokio::test]
async fn both_transports_show_the_same() {
    let server = server().await;
    let served = serve(&server).await;
    let over_wire = remote(&served, &server, "admin", "system:masters");
    let in_process = crate::common::admin(&server);
    let request = || {
        let mut r = krate_client::Request::of::<krate_api::types::core::v1::Namespace>(
            krate_client::Verb::List,
            "",
            "",
        );
        r.options = Options { limit: 3, ..Default::default() };
        r
    };
    let show = |reply| match reply {
        krate_client::Reply::List { items, revision, continue_token } => {
            (items.into_iter().map(|i| i.bytes).collect::<Vec<_>>(), revision, continue_token)
        }
        _ => panic!("a list"),
    };
    let (a, b) = (over_wire.send(request()).await.unwrap(), in_process.send(request()).await.unwrap());
    assert_eq!(show(a), show(b));
}

#[tokio::test]
async fn unknown_things_are_not_found() {
    let server = server().await;
    let served = serve(&server).await;
    let admin = remote(&served, &server, "admin", "system:masters");
    let (code, status) = get(&admin, "/api/v1/nothings").await;
    assert_eq!(
        (code, status["message"].as_str()),
        (404, Some("the server could not find the requested resource"))
    );
    let (code, body) = admin.raw(http::Method::GET, "/nothing", None, Default::default()).await.unwrap();
    assert_eq!((code.as_u16(), &body[..]), (404, &b"404 page not found\n"[..]));
}

#[tokio::test]
async fn discovery_and_health() {
    let server = server().await;
    let served = serve(&server).await;
    let admin = remote(&served, &server, "admin", "system:masters");
    let (_, core) = get(&admin, "/api/v1").await;
    let names: Vec<&str> =
        core["resources"].as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
    assert!(names.contains(&"pods") && names.contains(&"pods/log"));
    let (_, groups) = get(&admin, "/apis").await;
    assert_eq!(groups["groups"][0]["name"], "apps");
    assert_eq!(get(&admin, "/version").await.1["gitVersion"], "v1.36.3+krate");
    let (code, body) =
        admin.raw(http::Method::GET, "/readyz?verbose", None, Default::default()).await.unwrap();
    assert_eq!(code.as_u16(), 200);
    assert!(String::from_utf8_lossy(&body).ends_with("readyz check passed\n"));
}

#[tokio::test]
async fn tables_and_metadata_are_made_by_the_server() {
    use http_body_util::BodyExt as _;
    let server = server().await;
    crate::common::pods(&crate::common::admin(&server))
        .create(crate::common::pod("default", "a"))
        .await
        .unwrap();
    let served = serve(&server).await;
    let pair = server.authority().client("admin", &["system:masters"]).unwrap();
    let get = |path: &'static str, accept: &'static str| {
        let (pair, served) = (pair.clone(), &served);
        async move {
            let mut sender = crate::common::connect(served, &pair).await;
            let request = http::Request::get(path)
                .header("host", "localhost")
                .header("accept", accept)
                .body(http_body_util::Full::new(bytes::Bytes::new()))
                .unwrap();
            let response = sender.send_request(request).await.unwrap();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            serde_json::from_slice::<serde_json::Value>(&body).unwrap()
        }
    };
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let shown = get("/api/v1/namespaces/default/pods", table).await;
    assert_eq!((shown["kind"].as_str(), shown["rows"][0]["cells"][0].as_str()), (Some("Table"), Some("a")));
    assert_eq!(shown["columnDefinitions"][0]["name"], "Name");
    assert_eq!(shown["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let shown = get("/api/v1/namespaces/default/pods", partial).await;
    assert_eq!(shown["kind"], "PartialObjectMetadataList");
    assert!(shown["items"][0].get("spec").is_none());
    let refused = get("/api/v1/namespaces/default/pods", "application/vnd.kubernetes.protobuf").await;
    assert_eq!(refused["code"], 406);
}

#[tokio::test]
async fn openapi_documents_are_served() {
    let server = server().await;
    let served = serve(&server).await;
    let admin = remote(&served, &server, "admin", "system:masters");
    let (_, index) = get(&admin, "/openapi/v3").await;
    let address = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let (code, document) = get(&admin, &address).await;
    assert_eq!((code, document["openapi"].as_str()), (200, Some("3.0.0")));
    let (code, _) = get(&admin, "/openapi/v3/apis/apps/v1?hash=OLD").await;
    assert_eq!(code, 301);
    let (code, document) = get(&admin, "/openapi/v2").await;
    assert_eq!((code, document["swagger"].as_str()), (200, Some("2.0")));
}

#[tokio::test]
async fn deprecated_resources_say_so_and_certificates_have_an_id() {
    let server = server().await;
    let served = serve(&server).await;
    let admin = remote(&served, &server, "admin", "system:masters");
    let path = "/api/v1/namespaces/default/endpoints";
    let response = admin.open(http::Method::GET, path, None, Vec::new().into()).await.unwrap();
    assert_eq!(
        response.headers()["warning"],
        "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\""
    );
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let (_, review) = send(&admin, "POST", path, "application/json", review).await;
    let id = &review["status"]["userInfo"]["extra"]["authentication.kubernetes.io/credential-id"][0];
    assert!(id.as_str().is_some_and(|id| id.starts_with("X509SHA256=") && id.len() == 75), "{review}");
}

#[tokio::test]
async fn server_side_apply_is_refused_as_unsupported_even_for_what_is_not_there() {
    let server = server().await;
    let served = serve(&server).await;
    let admin = remote(&served, &server, "admin", "system:masters");
    let path = "/api/v1/namespaces/default/configmaps/a?fieldManager=test";
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let (code, status) = send(&admin, "PATCH", path, "application/apply-patch+yaml", body).await;
    assert_eq!((code, status["reason"].as_str()), (415, Some("UnsupportedMediaType")), "{status}");
}

#[tokio::test]
async fn options_are_checked_under_the_name_of_their_verb() {
    let server = server().await;
    let served = serve(&server).await;
    let admin = remote(&served, &server, "admin", "system:masters");
    let base = "/api/v1/namespaces/default/configmaps";
    let body = json!({"metadata": {"name": "a"}});
    let path = format!("{base}?dryRun=Some&fieldValidation=Some");
    let (code, refused) = send(&admin, "POST", &path, "application/json", body.clone()).await;
    assert_eq!(
        (code, refused["message"].as_str()),
        (
            422,
            Some(
                "CreateOptions.meta.k8s.io \"\" is invalid: [dryRun: Unsupported value: [\"Some\"]: supported values: \
                 \"All\", fieldValidation: Unsupported value: \"Some\": supported values: \"\", \"Ignore\", \"Strict\", \
                 \"Warn\"]"
            )
        )
    );
    send(&admin, "POST", base, "application/json", body.clone()).await;
    let merge = "application/merge-patch+json";
    let (code, refused) = send(&admin, "PATCH", &format!("{base}/a?force=true"), merge, json!({})).await;
    assert_eq!(
        (code, refused["message"].as_str()),
        (
            422,
            Some(
                "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch"
            )
        )
    );
    let options = json!({"propagationPolicy": "Some", "dryRun": ["All", "Some"]});
    let (code, refused) = send(&admin, "DELETE", &format!("{base}/a"), "application/json", options).await;
    assert_eq!(
        (code, refused["message"].as_str()),
        (
            422,
            Some(
                "DeleteOptions.meta.k8s.io \"\" is invalid: [propagationPolicy: Unsupported value: \"Some\": supported \
                 values: \"Foreground\", \"Background\", \"Orphan\", \"nil\", dryRun: Unsupported value: \
                 [\"All\",\"Some\"]: supported values: \"All\"]"
            )
        )
    );
    let (code, refused) = get(&admin, &format!("{base}?continue=!")).await;
    assert_eq!(
        (code, refused["message"].as_str()),
        (400, Some("invalid continue token: continue key is not valid: illegal base64 data at input byte 0"))
    );
    let log = "/api/v1/namespaces/default/pods/a/log?tailLines=-1&limitBytes=0";
    let (code, refused) = get(&admin, log).await;
    assert_eq!(
        (code, refused["message"].as_str()),
        (
            422,
            Some(
                "PodLogOptions \"a\" is invalid: [tailLines: Invalid value: -1: must be greater than or equal to 0, \
                 limitBytes: Invalid value: 0: must be greater than 0]"
            )
        )
    );
}

#[tokio::test]
async fn reviews_of_access_are_checked() {
    let server = server().await;
    let served = serve(&server).await;
    let admin = remote(&served, &server, "admin", "system:masters");
    let base = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    for (spec, faults) in [
        (
            json!({}),
            "[spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes \
             must be specified, spec.user: Invalid value: \"\": at least one of user or group must be specified]",
        ),
        (
            json!({"user": "a", "resourceAttributes": {}, "nonResourceAttributes": {"path": "/a"}}),
            "spec.nonResourceAttributes: Invalid value: {\"Path\":\"/a\",\"Verb\":\"\"}: cannot be specified in \
             combination with resourceAttributes",
        ),
        (
            json!({"user": "a", "resourceAttributes": {"fieldSelector": {}}}),
            "spec.resourceAttributes.fieldSelector.requirements: Required value: when \
             spec.resourceAttributes.fieldSelector is specified, requirements or rawSelector is required",
        ),
    ] {
        let (code, refused) = send(&admin, "POST", base, "application/json", json!({"spec": spec})).await;
        let wanted = format!("SubjectAccessReview.authorization.k8s.io \"\" is invalid: {faults}");
        assert_eq!((code, refused["message"].as_str()), (422, Some(wanted.as_str())));
    }
    let other = json!({"spec": {"user": "a", "resourceAttributes": {"namespace": "other"}}});
    let base = "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews";
    let (code, refused) = send(&admin, "POST", base, "application/json", other).await;
    assert_eq!(
        (code, refused["message"].as_str()),
        (
            422,
            Some(
                "LocalSubjectAccessReview.authorization.k8s.io \"\" is invalid: spec.resourceAttributes.namespace: Invalid \
                 value: \"other\": must match metadata.namespace"
            )
        )
    );
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_a_minute_and_a_half() {
    let server = server().await;
    let served = serve(&server).await;
    let mut sender =
        connect(&served, &server.authority().client("admin", &["system:masters"]).unwrap()).await;
    let ask = || http::Request::get("/version").header("host", "127.0.0.1").body(Default::default()).unwrap();
    let pass = async |seconds| {
        tokio::time::pause();
        tokio::time::advance(std::time::Duration::from_secs(seconds)).await;
        tokio::time::resume();
        // what falls due is done before the next request is on its way
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    };
    for _ in 0..2 {
        let answer = sender.send_request(ask()).await.unwrap();
        assert_eq!(answer.status(), 200);
        http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
        pass(80).await;
    }
    pass(20).await;
    assert!(sender.send_request(ask()).await.is_err());
}
