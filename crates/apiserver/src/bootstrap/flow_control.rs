//! The priority levels and flow schemas that every cluster begins with. They are written down for those who ask;
//! this server limits by other means.

use krate_api::meta::ObjectMeta;
use krate_api::types::flowcontrol::v1::{
    ExemptPriorityLevelConfiguration, FlowDistinguisherMethod, FlowSchema, FlowSchemaSpec, GroupSubject,
    LimitResponse, LimitedPriorityLevelConfiguration, NonResourcePolicyRule, PolicyRulesWithSubjects,
    PriorityLevelConfiguration, PriorityLevelConfigurationReference, PriorityLevelConfigurationSpec,
    QueuingConfiguration, ResourcePolicyRule, ServiceAccountSubject, Subject, UserSubject,
};

const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
/// Requests that may wait in one queue.
const QUEUE_LENGTH: i32 = 50;

/// Limited levels: name, shares, percent that others may borrow, and the number of queues with the size of a hand
/// (without: more is rejected).
const LEVELS: [(&str, i32, i32, Option<(i32, i32)>); 7] = [
    ("catch-all", 5, 0, None),
    ("global-default", 20, 50, Some((128, 6))),
    ("leader-election", 10, 0, Some((16, 4))),
    ("node-high", 40, 25, Some((64, 6))),
    ("system", 30, 33, Some((64, 6))),
    ("workload-high", 40, 50, Some((128, 6))),
    ("workload-low", 100, 90, Some((128, 6))),
];

/// Schemas: name, level, precedence, what tells flows apart, subjects, and what they do.
const SCHEMAS: [(&str, &str, i32, &str, &[&str], Rules); 11] = [
    ("catch-all", "catch-all", 10_000, "ByUser", EVERYBODY, Rules::Everything),
    ("exempt", "exempt", 1, "", &["group system:masters"], Rules::Everything),
    ("global-default", "global-default", 9900, "ByUser", EVERYBODY, Rules::Everything),
    (
        "kube-controller-manager",
        "workload-high",
        800,
        "ByNamespace",
        &["user system:kube-controller-manager"],
        Rules::Everything,
    ),
    (
        "kube-scheduler",
        "workload-high",
        800,
        "ByNamespace",
        &["user system:kube-scheduler"],
        Rules::Everything,
    ),
    ("kube-system-service-accounts", "workload-high", 900, "ByNamespace", &["accounts"], Rules::Everything),
    ("probes", "exempt", 2, "", EVERYBODY, Rules::Probes),
    (
        "service-accounts",
        "workload-low",
        9000,
        "ByUser",
        &["group system:serviceaccounts"],
        Rules::Everything,
    ),
    (
        "system-leader-election",
        "leader-election",
        100,
        "ByUser",
        &["user system:kube-controller-manager", "user system:kube-scheduler", "accounts"],
        Rules::Leases,
    ),
    ("system-node-high", "node-high", 400, "ByUser", &["group system:nodes"], Rules::Nodes),
    ("system-nodes", "system", 500, "ByUser", &["group system:nodes"], Rules::Everything),
];

const EVERYBODY: &[&str] = &["group system:unauthenticated", "group system:authenticated"];

#[derive(Clone, Copy)]
enum Rules {
    Everything,
    Probes,
    Leases,
    Nodes,
}

fn metadata(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        annotations: Some([(AUTOUPDATE.to_owned(), "true".to_owned())].into()),
        ..ObjectMeta::default()
    }
}

pub(super) fn levels() -> Vec<PriorityLevelConfiguration> {
    let exempt = PriorityLevelConfigurationSpec {
        type_: "Exempt".to_owned(),
        exempt: Some(ExemptPriorityLevelConfiguration {
            nominal_concurrency_shares: Some(0),
            lendable_percent: Some(0),
        }),
        ..Default::default()
    };
    let mut all =
        vec![PriorityLevelConfiguration { metadata: metadata("exempt"), spec: Some(exempt), status: None }];
    for (name, shares, lendable, queues) in LEVELS {
        let response = LimitResponse {
            type_: if queues.is_some() { "Queue" } else { "Reject" }.to_owned(),
            queuing: queues.map(|(queues, hand)| QueuingConfiguration {
                queues: Some(queues),
                hand_size: Some(hand),
                queue_length_limit: Some(QUEUE_LENGTH),
            }),
        };
        let spec = PriorityLevelConfigurationSpec {
            type_: "Limited".to_owned(),
            limited: Some(LimitedPriorityLevelConfiguration {
                nominal_concurrency_shares: Some(shares),
                lendable_percent: Some(lendable),
                limit_response: Some(response),
                borrowing_limit_percent: None,
            }),
            exempt: None,
        };
        all.push(PriorityLevelConfiguration { metadata: metadata(name), spec: Some(spec), status: None });
    }
    all
}

pub(super) fn schemas() -> Vec<FlowSchema> {
    let schema =
        |(name, level, precedence, method, subjects, rules): (&str, &str, i32, &str, &[&str], Rules)| {
            let (resource_rules, non_resource_rules) = rules.written();
            FlowSchema {
                metadata: metadata(name),
                spec: Some(FlowSchemaSpec {
                    priority_level_configuration: PriorityLevelConfigurationReference {
                        name: level.to_owned(),
                    },
                    matching_precedence: Some(precedence),
                    distinguisher_method: (!method.is_empty())
                        .then(|| FlowDistinguisherMethod { type_: method.to_owned() }),
                    rules: Some(vec![PolicyRulesWithSubjects {
                        subjects: subjects.iter().map(|s| subject(s)).collect(),
                        resource_rules: (!resource_rules.is_empty()).then_some(resource_rules),
                        non_resource_rules: (!non_resource_rules.is_empty()).then_some(non_resource_rules),
                    }]),
                }),
                status: None,
            }
        };
    SCHEMAS.into_iter().map(schema).collect()
}

/// `group NAME`, `user NAME`, or every service account of `kube-system`.
fn subject(text: &str) -> Subject {
    match text.split_once(' ') {
        Some(("group", name)) => Subject {
            kind: "Group".to_owned(),
            group: Some(GroupSubject { name: name.to_owned() }),
            ..Default::default()
        },
        Some((_, name)) => Subject {
            kind: "User".to_owned(),
            user: Some(UserSubject { name: name.to_owned() }),
            ..Default::default()
        },
        None => Subject {
            kind: "ServiceAccount".to_owned(),
            service_account: Some(ServiceAccountSubject {
                namespace: "kube-system".to_owned(),
                name: "*".to_owned(),
            }),
            ..Default::default()
        },
    }
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|w| (*w).to_owned()).collect()
}

fn resources(
    verbs: &[&str],
    group: &str,
    names: &[&str],
    everywhere: bool,
    cluster: bool,
) -> ResourcePolicyRule {
    ResourcePolicyRule {
        verbs: words(verbs),
        api_groups: words(&[group]),
        resources: words(names),
        namespaces: everywhere.then(|| words(&["*"])),
        cluster_scope: cluster.then_some(true),
    }
}

impl Rules {
    fn written(self) -> (Vec<ResourcePolicyRule>, Vec<NonResourcePolicyRule>) {
        const LEASES: (&str, &[&str]) = ("coordination.k8s.io", &["leases"]);
        let paths = |verbs: &[&str], urls: &[&str]| {
            vec![NonResourcePolicyRule { verbs: words(verbs), non_resource_urls: words(urls) }]
        };
        match self {
            Self::Everything => (vec![resources(&["*"], "*", &["*"], true, true)], paths(&["*"], &["*"])),
            Self::Probes => (vec![], paths(&["get"], &["/healthz", "/readyz", "/livez"])),
            Self::Leases => {
                (vec![resources(&["get", "create", "update"], LEASES.0, LEASES.1, true, false)], vec![])
            }
            Self::Nodes => (
                vec![
                    resources(&["*"], "", &["nodes", "nodes/status"], true, true),
                    resources(&["*"], LEASES.0, LEASES.1, true, false),
                ],
                vec![],
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use krate_api::Object as _;

    #[test]
    fn what_is_written_is_valid_and_names_levels_that_there_are() {
        let levels = levels();
        let named = |name: &str| levels.iter().any(|l| l.metadata.name.as_deref() == Some(name));
        for level in &levels {
            let faults =
                krate_api::behaviour::of("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations")
                    .validate(level);
            assert!(faults.is_empty(), "{:?}: {faults:?}", level.meta().name);
        }
        for schema in schemas() {
            let faults =
                krate_api::behaviour::of("flowcontrol.apiserver.k8s.io", "flowschemas").validate(&schema);
            assert!(faults.is_empty(), "{:?}: {faults:?}", schema.meta().name);
            assert!(named(&schema.spec.unwrap().priority_level_configuration.name));
        }
    }
}
