//! Credentials for registries, from `imagePullSecrets` of the types `kubernetes.io/dockerconfigjson` and
//! `kubernetes.io/dockercfg`.

use base64::Engine as _;
use krate_api::types::core::v1::Secret;
use krate_runtime::cri::AuthConfig;
use serde::Deserialize;
use std::collections::BTreeMap;

const DOCKER_HUB: &str = "docker.io";

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct DockerConfig {
    auths: BTreeMap<String, Entry>,
}

/// An image reference in its parts, with the defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub registry: String,
    pub repository: String,
    /// `:tag` or `@digest`.
    pub rest: String,
}

/// Reads a reference as `docker pull` does; the error is the one that the container's state shows.
pub fn parse(image: &str) -> Result<Reference, String> {
    let invalid = || format!("couldn't parse image name \"{image}\": invalid reference format");
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let slash = name.rfind('/').map_or(0, |at| at + 1);
    let (path, tag) = match name[slash..].find(':') {
        Some(colon) => (&name[..slash + colon], Some(&name[slash + colon + 1..])),
        None => (name, None),
    };
    let (registry, repository) = match path.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest.to_owned()),
        Some(_) => (DOCKER_HUB, path.to_owned()),
        None => (DOCKER_HUB, format!("library/{path}")),
    };
    if !repository.split('/').all(is_path_part) || path.is_empty() {
        if path.chars().any(char::is_uppercase) {
            return Err(format!(
                "couldn't parse image name \"{image}\": invalid reference format: repository name ({path}) must be lowercase"
            ));
        }
        return Err(invalid());
    }
    if !tag.is_none_or(is_tag) || !digest.is_none_or(is_digest) {
        return Err(invalid());
    }
    let rest = match (digest, tag) {
        (Some(digest), _) => format!("@{digest}"),
        (None, tag) => format!(":{}", tag.unwrap_or("latest")),
    };
    Ok(Reference { registry: registry.to_owned(), repository, rest })
}

fn is_path_part(part: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    bytes.first().copied().is_some_and(plain)
        && bytes.last().copied().is_some_and(plain)
        && bytes.iter().all(|b| plain(*b) || matches!(b, b'.' | b'_' | b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.as_bytes().first().copied().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

/// The credentials in `secrets` that fit the image, best first (the longest path counts as best).
pub fn credentials<'a>(image: &Reference, secrets: impl IntoIterator<Item = &'a Secret>) -> Vec<AuthConfig> {
    let mut found: Vec<(usize, AuthConfig)> = Vec::new();
    for secret in secrets {
        for (address, entry) in entries(secret) {
            if let Some(length) = fits(image, &address) {
                found.extend(auth(&address, entry).map(|auth| (length, auth)));
            }
        }
    }
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, auth)| auth).collect()
}

fn entries(secret: &Secret) -> BTreeMap<String, Entry> {
    let data = |key: &str| secret.data.as_ref().and_then(|d| d.get(key)).map(|v| v.0.as_slice());
    match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => {
            data(".dockerconfigjson")
                .and_then(|bytes| serde_json::from_slice::<DockerConfig>(bytes).ok())
                .unwrap_or_default()
                .auths
        }
        Some("kubernetes.io/dockercfg") => {
            data(".dockercfg").and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default()
        }
        _ => BTreeMap::new(),
    }
}

/// Whether credentials for `address` (a registry, with a path or not) are for the image; the length of the
/// part that agrees.
fn fits(image: &Reference, address: &str) -> Option<usize> {
    let address = address.trim_start_matches("https://").trim_start_matches("http://");
    let (host, path) = address.split_once('/').unwrap_or((address, ""));
    let path = path.trim_end_matches('/');
    let hub = matches!(host, "index.docker.io" | "registry-1.docker.io" | "docker.io");
    if hub {
        return (image.registry == DOCKER_HUB).then_some(host.len());
    }
    if !glob(host, &image.registry) {
        return None;
    }
    // The path of an API version is no part of a repository.
    let path = if matches!(path, "v1" | "v2") { "" } else { path };
    let below = path.is_empty()
        || image.repository == path
        || image.repository.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    below.then_some(host.len() + path.len())
}

/// Host names part by part, `*` in a part standing for any characters.
fn glob(pattern: &str, host: &str) -> bool {
    let part = |pattern: &str, text: &str| match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => {
            text.len() >= before.len() + after.len() && text.starts_with(before) && text.ends_with(after)
        }
    };
    let (patterns, parts): (Vec<&str>, Vec<&str>) = (pattern.split('.').collect(), host.split('.').collect());
    patterns.len() == parts.len() && patterns.iter().zip(parts).all(|(p, t)| part(p, t))
}

fn auth(address: &str, entry: Entry) -> Option<AuthConfig> {
    let decoded = entry.auth.as_deref().and_then(|text| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text.trim()).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (user, password) = text.split_once(':')?;
        Some((user.to_owned(), password.trim_end_matches('\0').to_owned()))
    });
    let (username, password) = match (decoded, entry.username) {
        (Some(both), _) => both,
        (None, Some(user)) => (user, entry.password.unwrap_or_default()),
        (None, None) => (String::new(), String::new()),
    };
    let out = AuthConfig {
        username,
        password,
        server_address: address.to_owned(),
        identity_token: entry.identitytoken.unwrap_or_default(),
        registry_token: entry.registrytoken.unwrap_or_default(),
        ..Default::default()
    };
    let empty = out.username.is_empty() && out.identity_token.is_empty() && out.registry_token.is_empty();
    (!empty).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use krate_api::k8s_openapi::ByteString;

    fn reference(image: &str) -> Reference {
        parse(image).unwrap()
    }

    #[test]
    fn references() {
        let text = |image: &str| {
            let r = reference(image);
            format!("{}/{}{}", r.registry, r.repository, r.rest)
        };
        assert_eq!(text("nginx"), "docker.io/library/nginx:latest");
        assert_eq!(text("nginx:1"), "docker.io/library/nginx:1");
        assert_eq!(text("a/b:1"), "docker.io/a/b:1");
        assert_eq!(text("localhost:5000/x"), "localhost:5000/x:latest");
        assert_eq!(text("r.io/x/y"), "r.io/x/y:latest");
        let digest = format!("nginx@sha256:{}", "0".repeat(64));
        assert_eq!(text(&digest), format!("docker.io/library/{digest}"));
        assert_eq!(parse("a b").unwrap_err(), "couldn't parse image name \"a b\": invalid reference format");
        assert!(parse("Nginx").unwrap_err().ends_with("repository name (Nginx) must be lowercase"));
        for image in ["", "nginx:", "nginx:a b", "nginx@sha256:1", "/nginx", "a//b"] {
            assert!(parse(image).is_err(), "{image}");
        }
    }

    fn secret(json: &str) -> Secret {
        Secret {
            type_: Some("kubernetes.io/dockerconfigjson".into()),
            data: Some([(".dockerconfigjson".to_owned(), ByteString(json.into()))].into()),
            ..Default::default()
        }
    }

    #[test]
    fn the_best_credentials_come_first() {
        let secret = secret(
            r#"{"auths":{"r.io":{"username":"u","password":"p"},
                "https://r.io/team":{"auth":"YTpi"},"*.example.com":{"username":"x","password":"y"},
                "https://index.docker.io/v1/":{"username":"hub","password":"h"}}}"#,
        );
        let users = |image: &str| -> Vec<String> {
            credentials(&reference(image), [&secret]).into_iter().map(|a| a.username).collect()
        };
        assert_eq!(users("r.io/team/app"), ["a", "u"]);
        assert_eq!(users("r.io/teams/app"), ["u"]);
        assert_eq!(users("nginx"), ["hub"]);
        assert_eq!(users("a.example.com/x"), ["x"]);
        assert!(users("example.com/x").is_empty());
    }
}
