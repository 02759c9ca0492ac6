//! The environment of a container: literal values, references to ConfigMaps, Secrets, files, fields and
//! resources, and the variables of services.
//!
//! Pure: what a container refers to has been fetched before ([`Referenced`]). A missing reference is an
//! error with the text that the container's state shows.

pub mod expand;
pub mod fields;
pub mod file;
pub mod services;

use crate::spec;
use fields::Facts;
use krate_api::types::core::v1::{ConfigMap, Container, EnvFromSource, EnvVar, EnvVarSource, Pod, Secret};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The ConfigMaps and Secrets that a pod refers to, by name; absent ones are not in the maps.
#[derive(Clone, Debug, Default)]
pub struct Referenced {
    pub config_maps: BTreeMap<String, Arc<ConfigMap>>,
    pub secrets: BTreeMap<String, Arc<Secret>>,
    /// Of one container: the files that its variables come from.
    pub files: file::Files,
}

impl Referenced {
    pub fn config_map(&self, name: &str) -> Result<&ConfigMap, String> {
        self.config_maps.get(name).map(|m| &**m).ok_or_else(|| format!("configmap \"{name}\" not found"))
    }

    pub fn secret(&self, name: &str) -> Result<&Secret, String> {
        self.secrets.get(name).map(|m| &**m).ok_or_else(|| format!("secret \"{name}\" not found"))
    }
}

/// A container's variables in order, and the keys that were left out because they cannot be names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Environment {
    pub variables: Vec<(String, String)>,
    /// Sentences for the event `InvalidEnvironmentVariableNames`.
    pub skipped: Vec<String>,
}

/// Names of the ConfigMaps and Secrets that a pod's containers need for their environment.
pub fn references(pod: &Pod) -> (Vec<String>, Vec<String>) {
    let (mut config_maps, mut secrets) = (Vec::new(), Vec::new());
    let ephemeral = spec::ephemeral_containers(pod);
    for container in spec::init_containers(pod).iter().chain(spec::containers(pod)).chain(&ephemeral) {
        for from in container.env_from.iter().flatten() {
            config_maps.extend(from.config_map_ref.iter().map(|r| r.name.clone()));
            secrets.extend(from.secret_ref.iter().map(|r| r.name.clone()));
        }
        for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
            config_maps.extend(source.config_map_key_ref.iter().map(|r| r.name.clone()));
            secrets.extend(source.secret_key_ref.iter().map(|r| r.name.clone()));
        }
    }
    (config_maps, secrets)
}

/// Makes the environment of `container`. `services` are those of [`services::variables`].
pub fn environment(
    pod: &Pod,
    container: &Container,
    facts: &Facts,
    referenced: &Referenced,
    services: &BTreeMap<String, String>,
) -> Result<Environment, String> {
    let mut out = Builder::default();
    for from in container.env_from.iter().flatten() {
        out.add_all(spec::namespace(pod), from, referenced)?;
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value_of(pod, container, variable, facts, referenced, &out.known, services)? {
            out.set(&variable.name, value);
        }
    }
    for (name, value) in services {
        if !out.known.contains_key(name) {
            out.order.push(name.clone());
            out.known.insert(name.clone(), value.clone());
        }
    }
    Ok(out.finish())
}

#[derive(Default)]
struct Builder {
    order: Vec<String>,
    known: BTreeMap<String, String>,
    skipped: Vec<String>,
}

impl Builder {
    /// A later variable of the same name replaces the earlier one.
    fn set(&mut self, name: &str, value: String) {
        if self.known.insert(name.to_owned(), value).is_none() {
            self.order.push(name.to_owned());
        }
    }

    fn add_all(
        &mut self,
        namespace: &str,
        from: &EnvFromSource,
        referenced: &Referenced,
    ) -> Result<(), String> {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(source) = &from.config_map_ref {
            let values = match referenced.config_map(&source.name) {
                Ok(map) => map.data.clone().unwrap_or_default(),
                Err(_) if source.optional == Some(true) => return Ok(()),
                Err(error) => return Err(error),
            };
            self.add_keys(prefix, values, &format!("configMap {namespace}/{}", source.name));
        } else if let Some(source) = &from.secret_ref {
            let secret = match referenced.secret(&source.name) {
                Ok(secret) => secret,
                Err(_) if source.optional == Some(true) => return Ok(()),
                Err(error) => return Err(error),
            };
            let text = |v: &krate_api::k8s_openapi::ByteString| String::from_utf8_lossy(&v.0).into_owned();
            let values = secret.data.iter().flatten().map(|(k, v)| (k.clone(), text(v))).collect();
            self.add_keys(prefix, values, &format!("secret {namespace}/{}", source.name));
        }
        Ok(())
    }

    fn add_keys(&mut self, prefix: &str, values: BTreeMap<String, String>, whose: &str) {
        let mut invalid = Vec::new();
        for (key, value) in values {
            let name = format!("{prefix}{key}");
            if is_variable_name(&name) { self.set(&name, value) } else { invalid.push(name) }
        }
        if !invalid.is_empty() {
            self.skipped.push(format!(
                "Keys [{}] from the EnvFrom {whose} were skipped since they are considered invalid environment variable names.",
                invalid.join(", ")
            ));
        }
    }

    fn finish(mut self) -> Environment {
        let variables = self
            .order
            .into_iter()
            .filter_map(|name| self.known.remove(&name).map(|value| (name, value)))
            .collect();
        Environment { variables, skipped: self.skipped }
    }
}

/// Any printable ASCII but `=`.
fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=')
}

/// The value of one variable; `None` when an optional reference is absent.
fn value_of(
    pod: &Pod,
    container: &Container,
    variable: &EnvVar,
    facts: &Facts,
    referenced: &Referenced,
    known: &BTreeMap<String, String>,
    services: &BTreeMap<String, String>,
) -> Result<Option<String>, String> {
    match &variable.value_from {
        Some(source) if variable.value.as_deref().unwrap_or_default().is_empty() => {
            from_source(pod, container, source, facts, referenced)
        }
        _ => Ok(Some(expand::expand(variable.value.as_deref().unwrap_or_default(), |name| {
            known.get(name).or_else(|| services.get(name)).map(String::as_str)
        }))),
    }
}

fn from_source(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    facts: &Facts,
    referenced: &Referenced,
) -> Result<Option<String>, String> {
    if let Some(selector) = &source.field_ref {
        return fields::field(pod, facts, selector)
            .map(Some)
            .ok_or_else(|| format!("unsupported fieldPath: {}", selector.field_path));
    }
    if let Some(selector) = &source.resource_field_ref {
        let named = selector.container_name.as_deref().filter(|n| !n.is_empty());
        let other = named.map(|name| {
            spec::find_container(pod, name)
                .map(|(_, c)| c)
                .ok_or_else(|| format!("container {name} not found"))
        });
        let of = other.transpose()?;
        return fields::resource(of.as_ref().unwrap_or(container), facts, selector).map(Some);
    }
    if let Some(key) = &source.config_map_key_ref {
        let found = referenced
            .config_map(&key.name)
            .map(|map| map.data.as_ref().and_then(|d| d.get(&key.key)).cloned());
        return optional(found, key.optional, || {
            format!("couldn't find key {} in ConfigMap {}/{}", key.key, spec::namespace(pod), key.name)
        });
    }
    if let Some(key) = &source.secret_key_ref {
        let found = referenced.secret(&key.name).map(|secret| {
            secret
                .data
                .as_ref()
                .and_then(|d| d.get(&key.key))
                .map(|v| String::from_utf8_lossy(&v.0).into_owned())
        });
        return optional(found, key.optional, || {
            format!("couldn't find key {} in Secret {}/{}", key.key, spec::namespace(pod), key.name)
        });
    }
    if let Some(source) = &source.file_key_ref {
        return file::value(&referenced.files, source);
    }
    Ok(Some(String::new()))
}

/// The value, nothing if what is missing may be missing, or the error of what is missing.
fn optional(
    found: Result<Option<String>, String>,
    may_be_missing: Option<bool>,
    no_key: impl FnOnce() -> String,
) -> Result<Option<String>, String> {
    match found {
        Ok(Some(value)) => Ok(Some(value)),
        _ if may_be_missing == Some(true) => Ok(None),
        Ok(None) => Err(no_key()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::build::*;
    use krate_api::types::core::v1::{ConfigMapEnvSource, ConfigMapKeySelector, SecretKeySelector};

    fn literal(name: &str, value: &str) -> EnvVar {
        EnvVar { name: name.into(), value: Some(value.into()), value_from: None }
    }

    fn make(container: &Container, referenced: &Referenced) -> Result<Environment, String> {
        let services = [("API_HOST".to_owned(), "10.0.0.1".to_owned())].into();
        environment(&pod("web"), container, &Facts::default(), referenced, &services)
    }

    #[test]
    fn earlier_variables_and_services_are_expanded_and_services_come_last() {
        let mut c = container("web");
        c.env = Some(vec![
            literal("A", "1"),
            literal("B", "$(A)-$(API_HOST)-$(LATER)-$$(A)"),
            literal("LATER", "x"),
        ]);
        let env = make(&c, &Referenced::default()).unwrap().variables;
        assert_eq!(env[1].1, "1-10.0.0.1-$(LATER)-$(A)");
        assert_eq!(env.last().unwrap().0, "API_HOST");
    }

    #[test]
    fn a_whole_config_map_with_a_prefix() {
        let map = ConfigMap {
            data: Some([("ok".into(), "1".into()), ("bad=key".into(), "2".into())].into()),
            ..Default::default()
        };
        let referenced =
            Referenced { config_maps: [("c".to_owned(), Arc::new(map))].into(), ..Default::default() };
        let mut c = container("web");
        c.env_from = Some(vec![EnvFromSource {
            prefix: Some("P_".into()),
            config_map_ref: Some(ConfigMapEnvSource { name: "c".into(), optional: None }),
            secret_ref: None,
        }]);
        let env = make(&c, &referenced).unwrap();
        assert_eq!(env.variables[0], ("P_ok".into(), "1".into()));
        assert!(
            env.skipped[0].starts_with("Keys [P_bad=key] from the EnvFrom configMap default/c were skipped")
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut c = container("web");
        let secret = |key: &str, optional| EnvVar {
            name: "S".into(),
            value: None,
            value_from: Some(EnvVarSource {
                secret_key_ref: Some(SecretKeySelector { key: key.into(), name: "s".into(), optional }),
                ..Default::default()
            }),
        };
        c.env = Some(vec![secret("k", None)]);
        assert_eq!(make(&c, &Referenced::default()).unwrap_err(), "secret \"s\" not found");
        let referenced =
            Referenced { secrets: [("s".to_owned(), Arc::default())].into(), ..Default::default() };
        assert_eq!(make(&c, &referenced).unwrap_err(), "couldn't find key k in Secret default/s");
        c.env = Some(vec![secret("k", Some(true))]);
        assert_eq!(make(&c, &referenced).unwrap().variables.len(), 1);
        c.env = Some(vec![EnvVar {
            name: "M".into(),
            value: None,
            value_from: Some(EnvVarSource {
                config_map_key_ref: Some(ConfigMapKeySelector {
                    key: "k".into(),
                    name: "m".into(),
                    optional: None,
                }),
                ..Default::default()
            }),
        }]);
        assert_eq!(make(&c, &Referenced::default()).unwrap_err(), "configmap \"m\" not found");
    }
}
