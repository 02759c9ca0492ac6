//! Encryption at rest, in the form of the original's `EncryptionConfiguration` (apiserver.config.k8s.io/v1).
//!
//! [`Encryption`] is the [`Seal`] of a store: for each resource the first provider of the first rule that
//! names it writes, and every provider reads. What it writes begins as the original's does
//! (`k8s:enc:aesgcm:v1:NAME:`) and, with aesgcm, holds only for the key under which it was written.
//! Records of another key or in plain are stale: the store rewrites them when it is told to or opened.

mod cipher;
mod config;

pub use config::ConfigError;

use cipher::Cipher;
use config::{Rule, Rules};
use krate_store::{Key, Seal};
use parking_lot::RwLock;
use std::io;
use std::sync::Arc;

/// What every sealed value begins with.
const MARK: &str = "k8s:enc:";

/// The keys by which a store's values are sealed. They can be exchanged while the store is open.
pub struct Encryption(RwLock<Arc<Rules>>);

impl Encryption {
    /// Reads an `EncryptionConfiguration` (YAML or JSON).
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Ok(Self(RwLock::new(Arc::new(Rules::parse(text)?))))
    }

    /// Takes another configuration from now on; a bad one changes nothing. Whatever is then stale is for
    /// [`krate_store::Embedded::reseal`].
    pub fn reload(&self, text: &str) -> Result<(), ConfigError> {
        let rules = Arc::new(Rules::parse(text)?);
        *self.0.write() = rules;
        Ok(())
    }

    /// A configuration with one new key, for Secrets.
    pub fn generate() -> Result<String, ConfigError> {
        config::written(&[config::new_key("key1")?])
    }

    /// The configuration that [`Self::generate`] made, with a new key that writes from now on. The others
    /// go on to read.
    pub fn rotate(text: &str) -> Result<String, ConfigError> {
        config::rotated(text)
    }

    fn rules(&self) -> Arc<Rules> {
        self.0.read().clone()
    }
}

impl std::fmt::Debug for Encryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encryption(..)")
    }
}

/// What a ciphertext is bound to: the key in the words of etcd.
fn context(key: &Key) -> String {
    format!("/registry/{}/{}", key.space, key.path)
}

impl Rule {
    /// Who writes; `None` is identity.
    fn writer(&self) -> Option<&Cipher> {
        self.providers.first().and_then(Option::as_ref)
    }
}

impl Seal for Encryption {
    fn seal(&self, key: &Key, plain: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let rules = self.rules();
        let Some(cipher) = rules.of(&key.space).and_then(Rule::writer) else { return Ok(None) };
        let mut out = cipher.prefix().as_bytes().to_vec();
        cipher.seal(context(key).as_bytes(), plain, &mut out)?;
        Ok(Some(out))
    }

    fn open(&self, key: &Key, sealed: &[u8]) -> io::Result<Vec<u8>> {
        let rules = self.rules();
        let own = rules.of(&key.space).map(|rule| &rule.providers).into_iter().flatten();
        // A resource that is no longer named is read with the keys of the others.
        let all = own.chain(rules.0.iter().flat_map(|rule| &rule.providers)).flatten();
        let mut failed = None;
        for cipher in all {
            if let Some(rest) = sealed.strip_prefix(cipher.prefix().as_bytes()) {
                match cipher.open(context(key).as_bytes(), rest) {
                    Ok(plain) => return Ok(plain),
                    Err(error) => failed = Some(error),
                }
            }
        }
        Err(failed.unwrap_or_else(|| unreadable(key, sealed)))
    }

    fn is_stale(&self, key: &Key, sealed: Option<&[u8]>) -> bool {
        let rules = self.rules();
        match (rules.of(&key.space).and_then(Rule::writer), sealed) {
            (None, None) => false,
            (Some(cipher), Some(sealed)) => !sealed.starts_with(cipher.prefix().as_bytes()),
            _ => true,
        }
    }
}

/// No key of the configuration is named by a sealed value.
fn unreadable(key: &Key, sealed: &[u8]) -> io::Error {
    let head = String::from_utf8_lossy(&sealed[..sealed.len().min(120)]).into_owned();
    let mut words = head.strip_prefix(MARK).unwrap_or("").split(':');
    let (provider, name) = (words.next().unwrap_or("?"), words.nth(1).unwrap_or("?"));
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!(
            "{}/{} is encrypted with the {provider} key {name:?}, which the encryption configuration does not hold",
            key.space, key.path
        ),
    )
}

#[cfg(test)]
mod tests;
