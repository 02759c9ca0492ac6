//! Reading and writing the configuration file.

use super::cipher::Cipher;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SecureRandom as _;
use serde::Deserialize;
use std::collections::HashSet;

const API_VERSION: &str = "apiserver.config.k8s.io/v1";
const KIND: &str = "EncryptionConfiguration";

/// Why a configuration is refused. Another file is needed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the file cannot be read: {0}")]
    Syntax(String),
    #[error("{field}: {detail}")]
    Invalid { field: String, detail: String },
    #[error("the system gives no random bytes")]
    Random,
}

fn invalid<T>(field: &str, detail: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Invalid { field: field.to_owned(), detail: detail.into() })
}

/// The rules in the order of the file: the first that names a resource holds.
pub(super) struct Rules(pub Vec<Rule>);

/// Who seals some resources. `None` is the provider `identity`.
pub(super) struct Rule {
    names: Vec<Name>,
    pub providers: Vec<Option<Cipher>>,
}

/// Which resources a rule names, by the space in which they are stored.
#[derive(Debug, PartialEq, Eq)]
enum Name {
    Space(String),
    /// `*.group`; the empty group is the core one.
    Group(String),
    All,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    kind: String,
    api_version: String,
    #[serde(default)]
    resources: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    providers: Vec<Provider>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Provider {
    aesgcm: Option<Keys>,
    aescbc: Option<Keys>,
    secretbox: Option<Keys>,
    identity: Option<Empty>,
    kms: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default)]
    keys: Vec<NamedKey>,
}

/// A key as the file has it, its secret in base64.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub(super) struct NamedKey {
    #[serde(default)]
    name: String,
    #[serde(default)]
    secret: String,
}

fn read(text: &str) -> Result<File, ConfigError> {
    let file: File = serde_saphyr::from_str(text).map_err(|e| ConfigError::Syntax(e.to_string()))?;
    if file.kind != KIND || file.api_version != API_VERSION {
        return Err(ConfigError::Syntax(format!(
            "no kind {:?} is registered for version {:?}; expected {KIND} of {API_VERSION}",
            file.kind, file.api_version
        )));
    }
    Ok(file)
}

impl Rules {
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let file = read(text)?;
        if file.resources.is_empty() {
            return invalid("resources", "at least one resource configuration is required");
        }
        let rules = file.resources.into_iter().enumerate().map(|(i, entry)| rule(i, entry));
        Ok(Self(rules.collect::<Result<_, _>>()?))
    }

    /// The rule for the resource that is stored in a space.
    pub fn of(&self, space: &str) -> Option<&Rule> {
        let group = group_of(space);
        let fits = |name: &Name| match name {
            Name::Space(named) => named == space,
            Name::Group(named) => named == group,
            Name::All => true,
        };
        self.0.iter().find(|rule| rule.names.iter().any(fits))
    }
}

/// The group of a space: `deployments.apps` is of `apps`, `secrets` of the core group.
fn group_of(space: &str) -> &str {
    space.split_once('.').map_or("", |(_, group)| group)
}

fn rule(index: usize, entry: Entry) -> Result<Rule, ConfigError> {
    let root = format!("resources[{index}]");
    if entry.resources.is_empty() {
        return invalid(&format!("{root}.resources"), "resources must be set");
    }
    if entry.providers.is_empty() {
        return invalid(&format!("{root}.providers"), "at least one provider must be set");
    }
    let names = names(&format!("{root}.resources"), &entry.resources)?;
    let mut providers = Vec::new();
    for (i, provider) in entry.providers.into_iter().enumerate() {
        add_provider(&format!("{root}.providers[{i}]"), provider, &mut providers)?;
    }
    Ok(Rule { names, providers })
}

fn names(field: &str, list: &[String]) -> Result<Vec<Name>, ConfigError> {
    let mut seen = HashSet::new();
    let mut names = Vec::new();
    for (i, text) in list.iter().enumerate() {
        let field = format!("{field}[{i}]");
        if !seen.insert(text) {
            return invalid(&field, "the same resource cannot be specified multiple times");
        }
        if text.chars().any(char::is_uppercase) {
            return invalid(&field, "resource name should not contain capital letters");
        }
        names.push(match text.as_str() {
            "*" => {
                return invalid(
                    &field,
                    "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources",
                );
            }
            "*.*" => Name::All,
            "*.events.k8s.io" | "events.events.k8s.io" => {
                return invalid(
                    &field,
                    "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' \
                     instead in the config file",
                );
            }
            other => match other.strip_prefix("*.") {
                Some(group) => Name::Group(group.to_owned()),
                None if other.starts_with('*') || other.contains('/') || other.is_empty() => {
                    return invalid(&field, format!("{other:?} is not of the form resource.group"));
                }
                None => Name::Space(other.trim_end_matches('.').to_owned()),
            },
        });
    }
    let masked = |name: &Name| match name {
        Name::Space(space) => {
            names.contains(&Name::All) || names.contains(&Name::Group(group_of(space).to_owned()))
        }
        Name::Group(_) => names.contains(&Name::All),
        Name::All => false,
    };
    if names.iter().any(masked) {
        return invalid(
            field,
            "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as \
             they will be masked",
        );
    }
    Ok(names)
}

fn add_provider(
    field: &str,
    provider: Provider,
    providers: &mut Vec<Option<Cipher>>,
) -> Result<(), ConfigError> {
    let Provider { aesgcm, aescbc, secretbox, identity, kms } = provider;
    let given = [aesgcm.is_some(), aescbc.is_some(), secretbox.is_some(), identity.is_some(), kms.is_some()];
    match given.iter().filter(|given| **given).count() {
        0 => {
            return invalid(
                field,
                "provider does not contain any of the expected providers: KMS, AESGCM, \
             AESCBC, Secretbox, Identity",
            );
        }
        1 => {}
        _ => {
            return invalid(
                field,
                "more than one provider specified in a single element, should split into different list elements",
            );
        }
    }
    if kms.is_some() {
        return invalid(&format!("{field}.kms"), "this version of Krate has no KMS provider");
    }
    if identity.is_some() {
        providers.push(None);
        return Ok(());
    }
    let kinds: [(_, _, fn(&str, &[u8]) -> Option<Cipher>, &str); 3] = [
        ("aesgcm", aesgcm, Cipher::aes_gcm, "[16 32]"),
        ("aescbc", aescbc, Cipher::aes_cbc, "[16 24 32]"),
        ("secretbox", secretbox, Cipher::secret_box, "[32]"),
    ];
    for (kind, keys, make, lengths) in kinds {
        let Some(keys) = keys else { continue };
        let field = format!("{field}.{kind}.keys");
        if keys.keys.is_empty() {
            return invalid(&field, "at least one key is required");
        }
        let mut seen = HashSet::new();
        for (i, key) in keys.keys.iter().enumerate() {
            let field = format!("{field}[{i}]");
            if !seen.insert(key.name.clone()) {
                return invalid(&format!("{field}.name"), "the same name cannot be used twice");
            }
            providers.push(Some(cipher(&field, key, make, lengths)?));
        }
    }
    Ok(())
}

fn cipher(
    field: &str,
    key: &NamedKey,
    make: fn(&str, &[u8]) -> Option<Cipher>,
    lengths: &str,
) -> Result<Cipher, ConfigError> {
    if key.name.is_empty() || key.name.contains(':') {
        return invalid(&format!("{field}.name"), "name is a mandatory field for a key, without a colon");
    }
    if key.secret.is_empty() {
        return invalid(&format!("{field}.secret"), "secret is a mandatory field for a key");
    }
    let Ok(secret) = STANDARD.decode(&key.secret) else {
        return invalid(&format!("{field}.secret"), "secrets must be base64 encoded");
    };
    match make(&key.name, &secret) {
        Some(cipher) => Ok(cipher),
        None => invalid(
            &format!("{field}.secret"),
            format!("secret is not of the expected length, got {}, expected one of {lengths}", secret.len()),
        ),
    }
}

/// A new key of 256 bits.
pub(super) fn new_key(name: &str) -> Result<NamedKey, ConfigError> {
    let mut secret = [0u8; 32];
    ring::rand::SystemRandom::new().fill(&mut secret).map_err(|_| ConfigError::Random)?;
    Ok(NamedKey { name: name.to_owned(), secret: STANDARD.encode(secret) })
}

/// The file that Krate makes by itself: Secrets, with these keys, the first of which writes.
pub(super) fn written(keys: &[NamedKey]) -> Result<String, ConfigError> {
    let mut text = format!(
        "# How the values of the store are encrypted. Without these keys the store cannot be read.\n\
         # The first key writes, all of them read; the server follows changes of this file.\n\
         kind: {KIND}\napiVersion: {API_VERSION}\nresources:\n- resources:\n  - secrets\n  providers:\n  \
         - aesgcm:\n      keys:\n"
    );
    for key in keys {
        text.push_str(&format!("      - name: {}\n        secret: {}\n", key.name, key.secret));
    }
    text.push_str("  - identity: {}\n");
    Rules::parse(&text)?;
    Ok(text)
}

/// The file with a new key before the others.
pub(super) fn rotated(text: &str) -> Result<String, ConfigError> {
    let file = read(text)?;
    let own = || {
        let [entry] = file.resources.as_slice() else { return None };
        let [provider, last] = entry.providers.as_slice() else { return None };
        let keys = provider.aesgcm.as_ref().filter(|_| last.identity.is_some())?;
        (entry.resources == ["secrets"]).then(|| keys.keys.clone())
    };
    let Some(mut keys) = own() else {
        return invalid("resources", "the file was changed by hand; add a key to it by hand too");
    };
    let number = |key: &NamedKey| key.name.strip_prefix("key").and_then(|n| n.parse::<u32>().ok());
    let next = keys.iter().filter_map(number).max().unwrap_or(0) + 1;
    keys.insert(0, new_key(&format!("key{next}"))?);
    written(&keys)
}
