//! What the server answers to requests that it cannot take: codes, reasons and texts, as the original has them.

use crate::common::{Served, connect, serve, server};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use krate_apiserver::ApiServer;
use krate_apiserver::pki::Pair;
use serde_json::Value;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const OPERATIONS: &str = "application/json-patch+json";

/// An administrator with a connection of their own for each request.
struct Admin {
    served: Served,
    pair: Pair,
}

struct Answer {
    code: u16,
    headers: http::HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// Code, reason and message.
    fn refusal(&self) -> (u16, String, String) {
        let status = self.json();
        let text = |name: &str| status[name].as_str().unwrap_or_default().to_owned();
        (self.code, text("reason"), text("message"))
    }

    fn warnings(&self) -> Vec<String> {
        let texts = self.headers.get_all("warning").iter().map(|v| v.to_str().unwrap());
        texts.map(|t| t.trim_start_matches("299 - ").to_owned()).collect()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

impl Admin {
    async fn of(server: &ApiServer) -> Self {
        let pair = server.authority().client("admin", &["system:masters"]).unwrap();
        Self { served: serve(server).await, pair }
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut sender = connect(&self.served, &self.pair).await;
        let mut request = http::Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Answer { code: parts.status.as_u16(), headers: parts.headers, text }
    }

    async fn send(&self, method: &str, path: &str, content_type: &str, body: &str) -> Answer {
        self.ask(method, path, &[("content-type", content_type)], body).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    async fn made(&self, name: &str) {
        let body = format!(
            r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"a":"1"}}}}"#
        );
        assert_eq!(self.send("POST", MAPS, JSON, &body).await.code, 201);
    }
}

#[tokio::test]
async fn parameters_are_read_as_the_original_reads_them() {
    let server = server().await;
    let admin = Admin::of(&server).await;
    let invalid = |what: &str| format!("ListOptions.meta.k8s.io \"\" is invalid: {what}");
    let number = "strconv.ParseUint: parsing \"abc\": invalid syntax";
    let token = |json: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json)
    };
    let bad_token = |what: &str| format!("invalid continue token: continue key is not valid: {what}");
    for (query, code, want) in [
        ("limit=x", 400, "strconv.ParseInt: parsing \"x\": invalid syntax".to_owned()),
        (
            "limit=99999999999999999999",
            400,
            "strconv.ParseInt: parsing \"99999999999999999999\": value out of range".to_owned(),
        ),
        (
            "timeout=bogus",
            400,
            "invalid timeout specified in the request URL - time: invalid duration \"bogus\"".to_owned(),
        ),
        (
            "timeout=10",
            400,
            "invalid timeout specified in the request URL - time: missing unit in duration \"10\"".to_owned(),
        ),
        (
            "resourceVersion=abc",
            400,
            format!("invalid resource version: resourceVersion: Invalid value: \"abc\": {number}"),
        ),
        (
            "watch=1&resourceVersion=abc",
            422,
            format!("configmaps \"\" is invalid: resourceVersion: Invalid value: \"abc\": {number}"),
        ),
        (
            "resourceVersionMatch=Exact&continue=abc",
            422,
            invalid(
                "[resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is \
                 provided, resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided]",
            ),
        ),
        (
            "watch=1&sendInitialEvents=true&resourceVersionMatch=Exact",
            422,
            invalid(
                "[resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to \
                 NotOlderThan, resourceVersionMatch: Unsupported value: \"Exact\": supported values: \"NotOlderThan\"]",
            ),
        ),
        ("continue=junk!", 400, bad_token("illegal base64 data at input byte 4")),
        (
            &format!("continue={}", token("{}")),
            400,
            bad_token("server does not recognize this encoded version \"\""),
        ),
        (
            &format!("continue={}", token(r#"{"v":"meta.k8s.io/v1","start":"a"}"#)),
            400,
            bad_token("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"),
        ),
        (
            &format!("continue={}", token(r#"{"v":"meta.k8s.io/v1","rv":5}"#)),
            400,
            bad_token("encoded start key empty (version meta.k8s.io/v1)"),
        ),
        (
            &format!("resourceVersion=1&continue={}", token(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"a"}"#)),
            400,
            "specifying resource version is not allowed when using continue".to_owned(),
        ),
    ] {
        let (got, _, message) = admin.get(&format!("{MAPS}?{query}")).await.refusal();
        assert_eq!((got, message), (code, want), "{query}");
    }
    assert_eq!(admin.get(&format!("{MAPS}?timeout=5s&limit=-1")).await.code, 200);
    let (code, reason, message) =
        admin.get(&format!("{MAPS}/kube-root-ca.crt?resourceVersion=abc")).await.refusal();
    assert_eq!((code, reason.as_str()), (500, ""));
    assert_eq!(message, format!("resourceVersion: Invalid value: \"abc\": {number}"));
}

#[tokio::test]
async fn what_no_route_takes_is_refused() {
    let server = server().await;
    let admin = Admin::of(&server).await;
    for (method, path, code) in [
        ("PUT", MAPS, 405),
        ("PATCH", MAPS, 405),
        ("POST", "/api/v1/namespaces/default/configmaps/a", 405),
        ("POST", "/api/v1/configmaps", 405),
        ("DELETE", "/api/v1/configmaps", 405),
        ("BREW", MAPS, 405),
        ("GET", "/api/v1/namespaces/default/nodes", 404),
        ("GET", "/api/v1/bogus", 404),
        ("GET", "/apis/apps/v1/bogus", 404),
    ] {
        let answer = admin.ask(method, path, &[("content-type", JSON)], "{}").await;
        assert_eq!((answer.code, answer.json()["kind"].as_str()), (code, Some("Status")), "{method} {path}");
        assert_eq!(answer.json()["details"], serde_json::json!({}), "{method} {path}");
    }
    let answer = admin.get("/apis/bogus.example.com/v1/things").await;
    assert_eq!((answer.code, answer.text.as_str()), (404, "404 page not found\n"));
}

#[tokio::test]
async fn bodies_of_another_kind_are_refused() {
    let server = server().await;
    let admin = Admin::of(&server).await;
    let head = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    let unknown = |kind: &str, short: &str, version: &str| {
        format!(
            "{kind} in version \"{short}\" cannot be handled as a ConfigMap: no kind \"{kind}\" is registered for \
             version \"{version}\" in scheme \"pkg/api/legacyscheme/scheme.go:30\""
        )
    };
    for (body, want) in [
        (
            "[]",
            format!(
                "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json \
                 parse error: json: cannot unmarshal array into Go value of type {head} (5b5d)"
            ),
        ),
        (r#"{"kind":"Bogus","apiVersion":"v1"}"#, unknown("Bogus", "v1", "v1")),
        (r#"{"kind":"ConfigMap","apiVersion":"v2"}"#, unknown("ConfigMap", "v2", "v2")),
        (r#"{"kind":"ConfigMap","apiVersion":"apps/v1"}"#, unknown("ConfigMap", "v1", "apps/v1")),
        (
            r#"{"kind":"Pod","apiVersion":"v1"}"#,
            "Pod in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Pod) to (core.ConfigMap): unknown \
             conversion"
                .to_owned(),
        ),
    ] {
        let answer = admin.send("POST", MAPS, JSON, body).await;
        assert_eq!(answer.refusal(), (400, "BadRequest".to_owned(), want), "{body}");
    }
    admin.made("a").await;
    let path = format!("{MAPS}/a");
    for (body, want) in [
        (
            r#"{"metadata":{}}"#,
            "the name of the object (a based on URL) was undeterminable: name must be provided",
        ),
        (r#"{"metadata":{"name":"b"}}"#, "the name of the object (b) does not match the name on the URL (a)"),
        (
            r#"{"metadata":{"name":"b","namespace":"other"}}"#,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
    ] {
        let answer = admin.send("PUT", &path, JSON, body).await;
        assert_eq!(answer.refusal(), (400, "BadRequest".to_owned(), want.to_owned()), "PUT {body}");
        if !body.contains("{}") {
            let answer = admin.send("PATCH", &path, MERGE, body).await;
            assert_eq!(answer.refusal(), (400, "BadRequest".to_owned(), want.to_owned()), "PATCH {body}");
        }
    }
}

#[tokio::test]
async fn deletions_are_refused_with_what_cannot_be_read_or_does_not_hold() {
    let server = server().await;
    let admin = Admin::of(&server).await;
    admin.made("a").await;
    let path = format!("{MAPS}/a");
    let no_json =
        "couldn't get version/kind; json parse error: invalid character 'j' looking for beginning of value";
    for (body, code, reason, want) in [
        ("junk", 500, "", no_json),
        (
            r#"{"kind":"Pod","apiVersion":"v1"}"#,
            500,
            "",
            "no kind \"Pod\" is registered for version \"v1\" in scheme",
        ),
        (
            r#"{"preconditions":{"resourceVersion":"1"}}"#,
            409,
            "Conflict",
            "Operation cannot be fulfilled on ConfigMap \"a\": the ResourceVersion in the precondition (1) does not match",
        ),
        (
            r#"{"preconditions":{"uid":"b"}}"#,
            409,
            "Conflict",
            "Operation cannot be fulfilled on ConfigMap \"a\": the UID in the precondition (b) does not match",
        ),
    ] {
        let (got, why, message) = admin.send("DELETE", &path, JSON, body).await.refusal();
        assert_eq!((got, why.as_str()), (code, reason), "{body}");
        assert!(message.starts_with(want), "{message}");
    }
    assert_eq!(
        admin.send("DELETE", &path, JSON, r#"{"kind":"DeleteOptions","apiVersion":"v1"}"#).await.code,
        200
    );
}

#[tokio::test]
async fn duplicate_and_unknown_fields_of_patches_are_noticed() {
    let server = server().await;
    let admin = Admin::of(&server).await;
    admin.made("a").await;
    let duplicate = "duplicate field \\\"data.x\\\"";
    let unknown = "unknown field \\\"bogus\\\"";
    for (content_type, body, findings) in [
        (MERGE, r#"{"data":{"x":"1","x":"2"},"bogus":1}"#, [duplicate, unknown]),
        (STRATEGIC, r#"{"data":{"x":"1","x":"2"},"bogus":1}"#, [duplicate, unknown]),
        (
            OPERATIONS,
            r#"[{"op":"add","path":"/data/y","value":"1","foo":1},{"op":"add","path":"/bogus","value":1}]"#,
            ["json patch unknown field \\\"[0].foo\\\"", unknown],
        ),
    ] {
        let path = format!("{MAPS}/a?dryRun=All");
        let told = admin.send("PATCH", &path, content_type, body).await;
        let quoted: Vec<String> = findings.iter().map(|f| format!("\"{f}\"")).collect();
        assert_eq!((told.code, told.warnings()), (200, quoted), "{body}");
        let strict = admin.send("PATCH", &format!("{path}&fieldValidation=Strict"), content_type, body).await;
        let want = format!("strict decoding error: {}", findings.join(", ").replace('\\', ""));
        let (code, _, message) = strict.refusal();
        assert_eq!(code, 422, "{body}");
        assert!(message.ends_with(&want), "{message}");
        let silent = admin.send("PATCH", &format!("{path}&fieldValidation=Ignore"), content_type, body).await;
        assert_eq!((silent.code, silent.warnings()), (200, vec![]), "{body}");
    }
    let text =
        "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}";
    assert_eq!(admin.send("PATCH", &format!("{MAPS}/a"), MERGE, "[]").await.refusal().2, text);
    let answer = admin.send("PATCH", &format!("{MAPS}/a"), MERGE, r#"{"kind":"Pod"}"#).await;
    assert!(answer.refusal().2.ends_with(": converting (v1.Pod) to (core.ConfigMap): unknown conversion"));
}

#[tokio::test]
async fn duplicate_keys_of_yaml_are_told_by_line() {
    let server = server().await;
    let admin = Admin::of(&server).await;
    let yaml =
        "kind: ConfigMap\napiVersion: v1\nmetadata:\n  name: b\n  name: z\nbogus: 1\ndata:\n  a: x\n  a: w\n";
    let told = admin.send("POST", &format!("{MAPS}?dryRun=All"), YAML, yaml).await;
    assert_eq!((told.code, told.json()["metadata"]["name"].as_str()), (201, Some("z")));
    assert_eq!(
        told.warnings(),
        [
            r#""line 5: key \"name\" already set in map""#,
            r#""line 9: key \"a\" already set in map""#,
            r#""unknown field \"bogus\"""#
        ]
    );
    let strict = admin.send("POST", &format!("{MAPS}?fieldValidation=Strict"), YAML, yaml).await;
    let want = "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: yaml: unmarshal \
                errors:\n  line 5: key \"name\" already set in map\n  line 9: key \"a\" already set in map, unknown field \
                \"bogus\"";
    assert_eq!(strict.refusal(), (400, "BadRequest".to_owned(), want.to_owned()));
    let (code, _, message) = admin.send("POST", MAPS, YAML, "a: [").await.refusal();
    assert_eq!(code, 400);
    assert!(
        message
            .starts_with("the object provided is unrecognized (must be of type ConfigMap): yaml: line 1: ")
    );
}

#[tokio::test]
async fn documents_are_sent_once() {
    let server = server().await;
    let admin = Admin::of(&server).await;
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let index = admin.get("/openapi/v3").await.json();
    let addressed = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    for (path, accept) in [
        ("/api", aggregated),
        ("/apis", aggregated),
        ("/openapi/v2", "application/json"),
        ("/openapi/v3", "application/json"),
        ("/openapi/v3/apis/apps/v1", "application/json"),
        (&addressed, "application/json"),
    ] {
        let first = admin.ask("GET", path, &[("accept", accept)], "").await;
        let tag = first.header("etag").to_owned();
        assert!(first.code == 200 && tag.starts_with('"') && tag.len() > 2, "{path}");
        assert!(first.header("vary").contains("Accept"), "{path}");
        let again = admin.ask("GET", path, &[("accept", accept), ("if-none-match", &tag)], "").await;
        assert_eq!(
            (again.code, again.text.as_str(), again.header("etag")),
            (304, "", tag.as_str()),
            "{path}"
        );
        let other = admin.ask("GET", path, &[("accept", accept), ("if-none-match", "\"x\"")], "").await;
        assert_eq!(other.code, 200, "{path}");
        if accept == aggregated {
            assert_eq!(first.header("cache-control"), "public");
        }
    }
    let kept = admin.get(&addressed).await;
    assert_eq!(kept.header("cache-control"), "public, immutable");
    assert!(kept.header("expires").ends_with(" UTC"), "{}", kept.header("expires"));
}

#[tokio::test]
async fn health_checks_that_cannot_be_left_out_are_named() {
    let server = server().await;
    let admin = Admin::of(&server).await;
    for name in ["healthz", "livez", "readyz"] {
        let text = admin.get(&format!("/{name}?verbose&exclude=b&exclude=a&exclude=ping")).await.text;
        let end = format!(
            "warn: some health checks cannot be excluded: no matches for \"a\",\"b\"\n{name} check passed\n"
        );
        assert!(text.starts_with("[+]ping excluded: ok\n") && text.ends_with(&end), "{text}");
        assert_eq!(admin.get(&format!("/{name}?exclude=b")).await.text, "ok");
    }
}

#[tokio::test]
async fn a_review_of_junk_says_why() {
    let server = server().await;
    let admin = Admin::of(&server).await;
    let body = r#"{"spec":{"token":"junk"}}"#;
    let review = admin.send("POST", "/apis/authentication.k8s.io/v1/tokenreviews", JSON, body).await.json();
    assert_eq!(review["status"], serde_json::json!({"user": {}, "error": "invalid bearer token"}));
}
