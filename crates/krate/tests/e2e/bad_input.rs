//! What must be refused, in the original's words, changing nothing.

use crate::cluster::Cluster;

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: nginx, image: 'nginx:1'}]}
";

#[test]
fn bad_input_gets_the_original_error_and_changes_nothing() {
    let c = Cluster::start("bad", 1);
    let refused = |args: &[&str], manifest: &str, words: &[&str]| {
        let said = c.kubectl_in(args, manifest);
        assert!(!said.ok, "should have been refused: {manifest}");
        for word in words {
            assert!(said.err.contains(word), "{word:?} is missing from: {}", said.err);
        }
    };
    let apply = &["apply", "--validate=strict", "-f", "-"];
    let unchecked = &["apply", "--validate=ignore", "-f", "-"];
    refused(
        apply,
        &WEB.replace("replicas: 1", "replicass: 1"),
        &["strict decoding error: unknown field \"spec.replicass\""],
    );
    refused(
        apply,
        &WEB.replace("replicas: 1", "replicas: one"),
        &["cannot unmarshal string into Go struct field", "of type int32"],
    );
    refused(
        unchecked,
        &WEB.replace("name: web}", "name: Web_1}"),
        &["metadata.name: Invalid value: \"Web_1\": a lowercase RFC 1123 subdomain"],
    );
    refused(
        unchecked,
        &WEB.replace("name: nginx, ", ""),
        &["spec.template.spec.containers[0].name: Required value"],
    );
    refused(
        unchecked,
        &WEB.replace("matchLabels: {app: web}", "matchLabels: {app: other}"),
        &["`selector` does not match template `labels`"],
    );
    c.apply(WEB);
    refused(
        unchecked,
        &WEB.replace("app: web", "app: other"),
        &["The Deployment \"web\" is invalid", "spec.selector", "field is immutable"],
    );
    refused(
        &["create", "-f", "-"],
        WEB,
        &["Error from server (AlreadyExists)", "deployments.apps \"web\" already exists"],
    );
    let yaml = c.kubectl(&["get", "deployment", "web", "-o", "yaml"]);
    c.kubectl(&["label", "deployment", "web", "a=b"]);
    refused(
        &["replace", "-f", "-"],
        &yaml,
        &[
            "Error from server (Conflict)",
            "the object has been modified; please apply your changes to the latest version and try again",
        ],
    );
    let forbidden = c.kubectl_fails(&["get", "pods", "--as=jane"]);
    assert!(forbidden.contains("pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""), "{forbidden}");
    let unauthorized = c.kubectl_fails(&[
        "get",
        "pods",
        "--token=expired",
        "--client-certificate=/dev/null",
        "--client-key=/dev/null",
    ]);
    assert!(!unauthorized.is_empty());
    let missing = c.kubectl_fails(&["get", "pod", "nothing"]);
    assert_eq!(missing.trim(), "Error from server (NotFound): pods \"nothing\" not found");

    c.kubectl(&["run", "absent", "--image=absent.invalid/none:1"]);
    c.kubectl(&["run", "never", "--image=none:1", "--image-pull-policy=Never"]);
    c.until(&["get", "pod", "never"], "ErrImageNeverPull", |out| out.contains("ErrImageNeverPull"));
    c.until(&["get", "pod", "absent"], "the pull to fail", |out| {
        out.contains("ErrImagePull") || out.contains("ImagePullBackOff")
    });
    assert_eq!(c.kubectl(&["get", "deployment", "web", "-o", "jsonpath={.spec.replicas}"]), "1");
}
