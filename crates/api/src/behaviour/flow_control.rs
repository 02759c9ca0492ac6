//! FlowSchemas and PriorityLevelConfigurations: which requests share which portion of a server. Their rules are
//! held; how a server obeys them is its own matter.

use super::check::Check;
use super::fill::{generation, items, number, restore_metadata, same, str_of, value};
use super::{Behaviour, Typed, internal, names};
use crate::field::{Error, Errors, Path};
use crate::types::flowcontrol::v1::{
    FlowSchema, FlowSchemaSpec, LimitResponse, LimitedPriorityLevelConfiguration, NonResourcePolicyRule,
    PolicyRulesWithSubjects, PriorityLevelConfiguration, PriorityLevelConfigurationSpec,
    QueuingConfiguration, ResourcePolicyRule, Subject,
};
use std::sync::Arc;

const EXEMPT: &str = "exempt";
const PRECEDENCE: i32 = 10_000;
const MOST_QUEUES: i32 = 10_000_000;
/// Most bits that the choice of a hand of queues may take.
const ENTROPY: u32 = 60;
const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

/// What both kinds have in common: a generation, a status of conditions, and a spec of which `$validate` knows the
/// rules.
macro_rules! behaviour {
    ($kind:ty, $default:expr, $validate:expr) => {
        Arc::new(Typed::<$kind> {
            default: $default,
            prepare_create: |object| {
                object.metadata.generation = Some(1);
                object.status = Some(Default::default());
            },
            prepare_update: |new, old| {
                new.status.clone_from(&old.status);
                generation(&mut new.metadata, &old.metadata, !same(&new.spec, &old.spec));
            },
            prepare_subresource: |_, new, old| {
                restore_metadata(&mut new.metadata, &old.metadata);
                new.spec.clone_from(&old.spec);
            },
            validate: |object| {
                let mut errors = Errors::new();
                if let Some(spec) = &object.spec {
                    $validate(&mut errors, str_of(&object.metadata.name), spec);
                }
                errors
            },
            validate_update: |subresource, new, _| {
                let mut errors = Errors::new();
                if let Some(spec) = new.spec.as_ref().filter(|_| subresource.is_empty()) {
                    $validate(&mut errors, str_of(&new.metadata.name), spec);
                }
                let conditions =
                    new.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
                conditions_of(&mut errors, conditions.iter().map(|c| str_of(&c.type_)));
                errors
            },
            check_name: names::subdomain_name,
            ..Default::default()
        })
    };
}

pub fn flow_schema() -> Arc<dyn Behaviour> {
    behaviour!(FlowSchema, default_schema, validate_schema)
}

pub fn priority_level() -> Arc<dyn Behaviour> {
    behaviour!(PriorityLevelConfiguration, default_level, validate_level)
}

fn default_schema(schema: &mut FlowSchema) {
    number(&mut schema.spec.get_or_insert_default().matching_precedence, 1000);
    schema.status.get_or_insert_default();
}

fn default_level(level: &mut PriorityLevelConfiguration) {
    let spec = level.spec.get_or_insert_default();
    if let Some(exempt) = &mut spec.exempt {
        value(&mut exempt.nominal_concurrency_shares, 0);
        value(&mut exempt.lendable_percent, 0);
    }
    if let Some(limited) = &mut spec.limited {
        value(&mut limited.nominal_concurrency_shares, 30);
        value(&mut limited.lendable_percent, 0);
        if let Some(queuing) = limited.limit_response.as_mut().and_then(|r| r.queuing.as_mut()) {
            number(&mut queuing.hand_size, 8);
            number(&mut queuing.queues, 64);
            number(&mut queuing.queue_length_limit, 50);
        }
    }
    level.status.get_or_insert_default();
}

fn conditions_of<'a>(errors: &mut Errors, types: impl Iterator<Item = &'a str>) {
    let path = Path::new("status").child("conditions");
    let mut seen: Vec<&str> = Vec::new();
    for (i, kind) in types.enumerate() {
        let at = path.index(i).child("type");
        if seen.contains(&kind) {
            errors.push(Error::duplicate(&at, kind));
        }
        if kind.is_empty() {
            errors.push(Error::required(&at, "must not be empty"));
        }
        seen.push(kind);
    }
}

fn validate_schema(errors: &mut Errors, name: &str, spec: &FlowSchemaSpec) {
    let path = Path::new("spec");
    let at = path.child("matchingPrecedence");
    let precedence = spec.matching_precedence.unwrap_or(0);
    if precedence <= 0 {
        errors.invalid(&at, &precedence, "must be a positive value");
    }
    if precedence > PRECEDENCE {
        errors.invalid(&at, &precedence, &format!("must not be greater than {PRECEDENCE}"));
    }
    if precedence == 1 && name != EXEMPT {
        errors.invalid(&at, &1, "only the schema named 'exempt' may have matchingPrecedence 1");
    }
    if let Some(method) = &spec.distinguisher_method {
        let at = path.child("distinguisherMethod").child("type");
        let known = ["ByNamespace", "ByUser"];
        if !known.contains(&method.type_.as_str()) {
            let value = internal::show(method, internal::DISTINGUISHER);
            errors.push(Error::not_supported(&at, "", &known).showing(value));
        }
    }
    let (at, level) =
        (path.child("priorityLevelConfiguration").child("name"), &spec.priority_level_configuration.name);
    if level.is_empty() {
        errors.push(Error::required(&at, "must reference a priority level"));
    } else {
        errors.faults(&at, level, names::dns1123_subdomain(level));
    }
    for (i, rules) in items(&spec.rules).iter().enumerate() {
        validate_rules(errors, &path.child("rules").index(i), rules);
    }
}

fn validate_rules(errors: &mut Errors, path: &Path, rules: &PolicyRulesWithSubjects) {
    if rules.subjects.is_empty() {
        errors.push(Error::required(&path.child("subjects"), "subjects must contain at least one value"));
    }
    for (i, subject) in rules.subjects.iter().enumerate() {
        validate_subject(errors, &path.child("subjects").index(i), subject);
    }
    let (resources, others) = (items(&rules.resource_rules), items(&rules.non_resource_rules));
    if resources.is_empty() && others.is_empty() {
        let text = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(Error::required(path, text));
    }
    for (i, rule) in resources.iter().enumerate() {
        resource_rule(errors, &path.child("resourceRules").index(i), rule);
    }
    for (i, rule) in others.iter().enumerate() {
        other_rule(errors, &path.child("nonResourceRules").index(i), rule);
    }
}

fn validate_subject(errors: &mut Errors, path: &Path, subject: &Subject) {
    let present = [
        ("ServiceAccount", "serviceAccount", subject.service_account.is_some()),
        ("User", "user", subject.user.is_some()),
        ("Group", "group", subject.group.is_some()),
    ];
    if !present.iter().any(|(kind, _, _)| *kind == subject.kind) {
        let known = ["Group", "ServiceAccount", "User"];
        errors.push(Error::not_supported(&path.child("kind"), &subject.kind, &known));
        return;
    }
    for (kind, field, _) in present.iter().filter(|(kind, _, there)| *kind == subject.kind && !there) {
        let text = format!("{field} is required when subject kind is '{kind}'");
        errors.push(Error::required(&path.child(field), &text));
    }
    named(errors, path, subject);
    for (kind, field, _) in present.iter().filter(|(kind, _, there)| *kind != subject.kind && *there) {
        let text = format!("{field} is forbidden when subject kind is not '{kind}'");
        errors.forbidden(&path.child(field), &text);
    }
}

/// What a subject is called, of the kind that it has.
fn named(errors: &mut Errors, path: &Path, subject: &Subject) {
    match subject.kind.as_str() {
        "ServiceAccount" => {
            let Some(account) = &subject.service_account else { return };
            let path = path.child("serviceAccount");
            if errors.required(&path.child("name"), &account.name) && account.name != "*" {
                let faults = names::dns1123_subdomain(&account.name);
                errors.faults(&path.child("name"), &account.name, faults);
            }
            let at = path.child("namespace");
            if account.namespace.is_empty() {
                errors.push(Error::required(&at, "must specify namespace for service account"));
            } else {
                errors.faults(&at, &account.namespace, names::dns1123_label(&account.namespace));
            }
        }
        "User" => {
            if let Some(user) = &subject.user {
                errors.required(&path.child("user").child("name"), &user.name);
            }
        }
        _ => {
            if let Some(group) = &subject.group {
                errors.required(&path.child("group").child("name"), &group.name);
            }
        }
    }
}

/// A list that has something in it, and nothing beside the wildcard if that is in it.
fn wild(errors: &mut Errors, path: &Path, list: &[String], missing: &str, others: &str) {
    if list.is_empty() {
        errors.push(Error::required(path, missing));
    } else if list.len() > 1 && list.iter().any(|v| v == "*") {
        errors.invalid(path, list, &format!("if '*' is present, must not specify other {others}"));
    }
}

fn verbs(errors: &mut Errors, path: &Path, list: &[String]) {
    let path = path.child("verbs");
    wild(errors, &path, list, "verbs must contain at least one value", "verbs");
    let wildcard = list.iter().any(|v| v == "*");
    if !wildcard && list.iter().any(|v| !VERBS.contains(&v.as_str())) {
        errors.push(Error::not_supported(&path, list, &VERBS));
    }
}

fn resource_rule(errors: &mut Errors, path: &Path, rule: &ResourcePolicyRule) {
    verbs(errors, path, &rule.verbs);
    let missing = "resource rules must supply at least one api group";
    wild(errors, &path.child("apiGroups"), &rule.api_groups, missing, "api groups");
    let missing = "resource rules must supply at least one resource";
    wild(errors, &path.child("resources"), &rule.resources, missing, "resources");
    let (at, namespaces) = (path.child("namespaces"), items(&rule.namespaces));
    if namespaces.is_empty() && rule.cluster_scope != Some(true) {
        let text = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.push(Error::required(&at, text));
    } else if namespaces.iter().any(|n| n == "*") {
        if namespaces.len() > 1 {
            errors.invalid(&at, namespaces, "if '*' is present, must not specify other namespaces");
        }
    } else {
        for (i, namespace) in namespaces.iter().enumerate() {
            for fault in names::dns1123_label(namespace) {
                let text = format!("each member of this list must be '*' or a DNS-1123 label; {fault}");
                errors.invalid(&at.index(i), namespace, &text);
            }
        }
    }
}

fn other_rule(errors: &mut Errors, path: &Path, rule: &NonResourcePolicyRule) {
    verbs(errors, path, &rule.verbs);
    let (at, urls) = (path.child("nonResourceURLs"), rule.non_resource_urls.as_slice());
    wild(errors, &at, urls, "nonResourceURLs must contain at least one value", "non-resource URLs");
    let wildcard = urls.iter().any(|url| url == "*");
    for (i, url) in urls.iter().enumerate().filter(|_| !wildcard) {
        let at = at.index(i);
        if url.is_empty() {
            errors.invalid(&at, url, "must not be empty");
        } else if url == "/" {
        } else if !url.starts_with('/') {
            errors.invalid(&at, url, "must start with slash");
        } else if url.contains(' ') {
            errors.invalid(&at, url, "must not contain white-space");
        } else if url.contains("//") {
            errors.invalid(&at, url, "must not contain double slash");
        } else if let Some((head, _)) = url.split_once('*')
            && (!head.ends_with('/') || head.len() + 1 != url.len())
        {
            errors.invalid(&at, url, "wildcard can only do suffix matching");
        }
    }
}

fn validate_level(errors: &mut Errors, name: &str, spec: &PriorityLevelConfigurationSpec) {
    let path = Path::new("spec");
    let exempt = spec.type_ == "Exempt";
    if (name == EXEMPT) != exempt {
        let text = "type must be 'Exempt' if and only if name is 'exempt'";
        errors.invalid(&path.child("type"), &spec.type_, text);
    }
    match spec.type_.as_str() {
        "Exempt" => {
            if spec.limited.is_some() {
                errors.forbidden(&path.child("limited"), "must be nil if the type is not Limited");
            }
            if let Some(part) = &spec.exempt {
                let path = path.child("exempt");
                shares(errors, &path, part.nominal_concurrency_shares.unwrap_or(0));
                percent(errors, &path, part.lendable_percent.unwrap_or(0));
            }
        }
        "Limited" => {
            if spec.exempt.is_some() {
                errors.forbidden(&path.child("exempt"), "must be nil if the type is Limited");
            }
            match &spec.limited {
                None => errors
                    .push(Error::required(&path.child("limited"), "must not be empty when type is Limited")),
                Some(part) => limited(errors, &path.child("limited"), part),
            }
        }
        other => errors.push(Error::not_supported(&path.child("type"), other, &["Exempt", "Limited"])),
    }
}

fn shares(errors: &mut Errors, path: &Path, shares: i32) {
    if shares < 0 {
        errors.invalid(&path.child("nominalConcurrencyShares"), &shares, "must be a non-negative integer");
    }
}

fn percent(errors: &mut Errors, path: &Path, percent: i32) {
    if !(0..=100).contains(&percent) {
        errors.invalid(&path.child("lendablePercent"), &percent, "must be between 0 and 100, inclusive");
    }
}

fn limited(errors: &mut Errors, path: &Path, part: &LimitedPriorityLevelConfiguration) {
    shares(errors, path, part.nominal_concurrency_shares.unwrap_or(0));
    percent(errors, path, part.lendable_percent.unwrap_or(0));
    if let Some(limit) = part.borrowing_limit_percent.filter(|limit| *limit < 0) {
        let text = "if specified, must be a non-negative integer";
        errors.invalid(&path.child("borrowingLimitPercent"), &limit, text);
    }
    let none = LimitResponse::default();
    let (path, response) = (path.child("limitResponse"), part.limit_response.as_ref().unwrap_or(&none));
    let at = path.child("queuing");
    match (response.type_.as_str(), &response.queuing) {
        ("Reject", Some(_)) => {
            errors.forbidden(&at, "must be nil if limited.limitResponse.type is not Limited");
        }
        ("Queue", None) => {
            let text = "must not be empty if limited.limitResponse.type is Limited";
            errors.push(Error::required(&at, text));
        }
        ("Queue", Some(part)) => queuing(errors, &at, part),
        ("Reject", None) => {}
        (other, _) => {
            errors.push(Error::not_supported(&path.child("type"), other, &["Queue", "Reject"]));
        }
    }
}

fn queuing(errors: &mut Errors, path: &Path, part: &QueuingConfiguration) {
    let (queues, hand) = (part.queues.unwrap_or(0), part.hand_size.unwrap_or(0));
    let length = part.queue_length_limit.unwrap_or(0);
    if length <= 0 {
        errors.invalid(&path.child("queueLengthLimit"), &length, "must be positive");
    }
    if queues <= 0 {
        errors.invalid(&path.child("queues"), &queues, "must be positive");
    } else if queues > MOST_QUEUES {
        errors.invalid(&path.child("queues"), &queues, &format!("must not be greater than {MOST_QUEUES}"));
    }
    let at = path.child("handSize");
    if hand <= 0 {
        errors.invalid(&at, &hand, "must be positive");
    } else if hand > queues {
        errors.invalid(&at, &hand, &format!("should not be greater than queues ({queues})"));
    } else if !fits(queues, hand) {
        let text = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {ENTROPY}"
        );
        errors.invalid(&at, &hand, &text);
    }
}

/// Whether the ways to deal a hand can be counted in [`ENTROPY`] bits.
fn fits(queues: i32, hand: i32) -> bool {
    let mut ways: u128 = 1;
    for dealt in 0..hand {
        ways *= u128::from((queues - dealt).unsigned_abs());
        if ways > 1 << ENTROPY {
            return false;
        }
    }
    true
}
