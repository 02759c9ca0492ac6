//! kubeconfig files: reading the current context, and adding or removing one of ours without touching what
//! else the file holds.

use crate::remote::RemoteConfig;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// What is wrong with a kubeconfig.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    #[error("the kubeconfig is not valid YAML: {0}")]
    Yaml(String),
    #[error("the kubeconfig has no {what} named {name:?}")]
    Missing { what: &'static str, name: String },
    #[error("the kubeconfig's {0} is not valid base64")]
    Base64(&'static str),
    #[error("cannot read {path}: {error}")]
    File { path: String, error: std::io::Error },
}

/// One context with its cluster and user, all of one name.
pub struct Entry<'a> {
    pub name: &'a str,
    pub server: &'a str,
    pub ca_pem: &'a [u8],
    pub cert_pem: &'a [u8],
    pub key_pem: &'a [u8],
}

const SECTIONS: [&str; 3] = ["clusters", "contexts", "users"];

/// The file with the entry added (or replaced) and made current.
pub fn with_entry(existing: &str, entry: &Entry<'_>) -> Result<String, KubeconfigError> {
    let mut config = parse(existing)?;
    remove(&mut config, entry.name);
    let encoded = |bytes: &[u8]| STANDARD.encode(bytes);
    let items = [
        json!({"name": entry.name, "cluster": {
            "certificate-authority-data": encoded(entry.ca_pem), "server": entry.server}}),
        json!({"name": entry.name, "context": {"cluster": entry.name, "user": entry.name}}),
        json!({"name": entry.name, "user": {
            "client-certificate-data": encoded(entry.cert_pem), "client-key-data": encoded(entry.key_pem)}}),
    ];
    for (section, item) in SECTIONS.iter().zip(items) {
        match config.get_mut(*section).and_then(Value::as_array_mut) {
            Some(list) => list.push(item),
            None => config[*section] = json!([item]),
        }
    }
    config["current-context"] = json!(entry.name);
    render(&config)
}

/// The file without the entry; `None` when nothing else is left in it.
pub fn without_entry(existing: &str, name: &str) -> Result<Option<String>, KubeconfigError> {
    let mut config = parse(existing)?;
    remove(&mut config, name);
    if config["current-context"] == json!(name) {
        config["current-context"] = json!("");
    }
    let empty = SECTIONS.iter().all(|s| config[*s].as_array().is_none_or(Vec::is_empty));
    if empty { Ok(None) } else { render(&config).map(Some) }
}

/// The server and identity of the current context (or of the one named).
pub fn remote_config(text: &str, context: Option<&str>) -> Result<RemoteConfig, KubeconfigError> {
    let config = parse(text)?;
    let context = context.unwrap_or_else(|| config["current-context"].as_str().unwrap_or(""));
    let context = named(&config, "contexts", "context", context)?;
    let cluster = named(&config, "clusters", "cluster", context["cluster"].as_str().unwrap_or(""))?;
    let user = named(&config, "users", "user", context["user"].as_str().unwrap_or(""))?;
    let cert = data(user, "client-certificate-data", "client-certificate")?;
    let key = data(user, "client-key-data", "client-key")?;
    Ok(RemoteConfig {
        server: cluster["server"].as_str().unwrap_or("").to_owned(),
        ca_pem: data(cluster, "certificate-authority-data", "certificate-authority")?.unwrap_or_default(),
        identity: cert.zip(key),
        token: user["token"].as_str().map(str::to_owned),
        user_agent: String::new(),
    })
}

fn data(
    section: &Value,
    inline: &'static str,
    file: &'static str,
) -> Result<Option<Vec<u8>>, KubeconfigError> {
    if let Some(text) = section[inline].as_str() {
        return STANDARD.decode(text).map(Some).map_err(|_| KubeconfigError::Base64(inline));
    }
    match section[file].as_str() {
        Some(path) => std::fs::read(path)
            .map(Some)
            .map_err(|error| KubeconfigError::File { path: path.to_owned(), error }),
        None => Ok(None),
    }
}

fn named<'a>(
    config: &'a Value,
    section: &str,
    inner: &'static str,
    name: &str,
) -> Result<&'a Value, KubeconfigError> {
    let list = config[section].as_array();
    list.and_then(|list| list.iter().find(|item| item["name"] == json!(name)))
        .map(|item| &item[inner])
        .ok_or_else(|| KubeconfigError::Missing { what: inner, name: name.to_owned() })
}

fn remove(config: &mut Value, name: &str) {
    for section in SECTIONS {
        if let Some(list) = config.get_mut(section).and_then(Value::as_array_mut) {
            list.retain(|item| item["name"] != json!(name));
        }
    }
}

fn parse(text: &str) -> Result<Value, KubeconfigError> {
    let config: Value = if text.trim().is_empty() {
        Value::Null
    } else {
        serde_saphyr::from_str(text).map_err(|e| KubeconfigError::Yaml(e.to_string()))?
    };
    match config {
        Value::Null => Ok(json!({"apiVersion": "v1", "kind": "Config", "preferences": {}})),
        Value::Object(_) => Ok(config),
        _ => Err(KubeconfigError::Yaml("it is not a mapping".to_owned())),
    }
}

fn render(config: &Value) -> Result<String, KubeconfigError> {
    // in one line, however long: people take certificates out of these files with grep
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
    serde_saphyr::to_string_with_options(config, options).map_err(|e| KubeconfigError::Yaml(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: Entry<'_> = Entry {
        name: "krate",
        server: "https://127.0.0.1:6443",
        ca_pem: b"ca",
        cert_pem: b"cert",
        key_pem: b"key",
    };

    #[test]
    fn an_entry_goes_in_and_out_and_leaves_others_alone() {
        let other = "apiVersion: v1\nkind: Config\nclusters:\n- name: prod\n  cluster: {server: 'https://x:1'}\ncontexts: []\nusers: []\n";
        let long = Entry { ca_pem: &[b'c'; 300], ..ENTRY };
        let with = with_entry(other, &long).unwrap();
        let line = with.lines().find(|line| line.contains("certificate-authority-data: ")).unwrap();
        assert!(line.ends_with(&STANDARD.encode(long.ca_pem)), "{line}");
        let remote = remote_config(&with, None).unwrap();
        assert_eq!(remote.server, "https://127.0.0.1:6443");
        assert_eq!(remote.identity, Some((b"cert".to_vec(), b"key".to_vec())));
        let without = without_entry(&with, "krate").unwrap().unwrap();
        assert!(without.contains("prod") && !without.contains("krate"), "{without}");
        let alone = with_entry("", &ENTRY).unwrap();
        assert_eq!(without_entry(&alone, "krate").unwrap(), None);
    }

    #[test]
    fn a_missing_context_is_named() {
        let error = remote_config("kind: Config\ncurrent-context: x\n", None).err().unwrap();
        assert_eq!(error.to_string(), "the kubeconfig has no context named \"x\"");
    }
}
