//! Secrets on the disk: written through the API, and in no file of the store as plain text.

use crate::common::admin;
use base64::Engine as _;
use k8s_openapi::ByteString;
use krate_api::types::core::v1 as core;
use krate_apiserver::encryption::Encryption;
use krate_apiserver::{ApiServer, Authority, Config};
use krate_base::{Clock, Rng};
use krate_client::Api;
use krate_store::{Embedded, Options, Store as _};
use std::path::Path;
use std::sync::Arc;

const HUSH: [&str; 3] =
    ["correct-horse-battery-staple", "second-secret-of-the-day", "third-after-rotation-x"];

struct Running {
    server: ApiServer,
    store: Arc<Embedded>,
}

async fn start(folder: &Path, seal: Option<Arc<Encryption>>) -> Running {
    let clock = Clock::system();
    let seal = seal.map(|seal| seal as Arc<dyn krate_store::Seal>);
    let options = Options { seal, ..Options::folder(folder, clock.clone()) };
    let store = Arc::new(Embedded::open(options).await.unwrap());
    let authority = Authority::generate(&clock).unwrap();
    let server = ApiServer::new(Config::new(store.clone(), clock, Rng::from_seed(7), authority)).unwrap();
    server.bootstrap().await.unwrap();
    Running { server, store }
}

impl Running {
    fn secrets(&self) -> Api<core::Secret> {
        Api::new(admin(&self.server))
    }

    async fn stop(self) {
        self.store.close().await.unwrap();
    }
}

fn secret(name: &str, value: &str) -> core::Secret {
    let mut secret = core::Secret::default();
    secret.metadata.name = Some(name.to_owned());
    secret.metadata.namespace = Some("default".to_owned());
    secret.data = Some([("password".to_owned(), ByteString(value.as_bytes().to_vec()))].into());
    secret
}

fn value(secret: &core::Secret) -> String {
    String::from_utf8(secret.data.as_ref().unwrap()["password"].0.clone()).unwrap()
}

/// The files below a folder that hold any of the texts, as they are or in base64 at any alignment.
fn leaks(folder: &Path, texts: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut needles: Vec<Vec<u8>> = Vec::new();
    for text in texts {
        needles.push(text.as_bytes().to_vec());
        for skip in 0..3 {
            let part = &text.as_bytes()[skip..];
            let whole = part.len() / 3 * 3;
            needles.push(base64::engine::general_purpose::STANDARD.encode(&part[..whole]).into_bytes());
        }
    }
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(leaks(&path, texts));
            continue;
        }
        // Journals are mostly zeros; those are not worth a look.
        let whole = std::fs::read(&path).unwrap();
        let used = whole.chunks(4096).filter(|chunk| *chunk != &[0; 4096][..chunk.len()]);
        let bytes: Vec<u8> = used.flatten().copied().collect();
        if needles.iter().any(|needle| bytes.windows(needle.len()).any(|part| part == needle)) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test]
async fn no_file_holds_a_secret_in_plain_whatever_happens_to_the_store() {
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("store");
    let first = Encryption::generate().unwrap();
    let keys = Arc::new(Encryption::parse(&first).unwrap());
    let running = start(&folder, Some(keys.clone())).await;
    let api = running.secrets();
    let made = api.create(secret("a", HUSH[0])).await.unwrap();
    let mut changed = (*made).clone();
    changed.data = secret("a", HUSH[1]).data;
    api.update(changed).await.unwrap();
    api.create(secret("gone", HUSH[0])).await.unwrap();
    api.delete("default", "gone", Default::default()).await.unwrap();
    assert_eq!(leaks(base.path(), &HUSH), Vec::<String>::new());
    running.stop().await;
    assert_eq!(leaks(base.path(), &HUSH), Vec::<String>::new());

    // A restart, a rotation while it runs, a compaction.
    let running = start(&folder, Some(keys.clone())).await;
    let api = running.secrets();
    assert_eq!(value(&api.get("default", "a").await.unwrap()), HUSH[1]);
    let second = Encryption::rotate(&first).unwrap();
    keys.reload(&second).unwrap();
    api.create(secret("b", HUSH[2])).await.unwrap();
    assert!(running.store.reseal().await.unwrap() >= 2);
    running.store.compact(running.store.revision()).await.unwrap();
    assert_eq!(value(&api.get("default", "a").await.unwrap()), HUSH[1]);
    running.stop().await;
    assert_eq!(leaks(base.path(), &HUSH), Vec::<String>::new());

    // With the new key alone everything is read: nothing was left under the old one.
    let old = first.lines().find(|line| line.contains("secret:")).unwrap();
    let lines: Vec<&str> = second.lines().collect();
    let at = lines.iter().position(|line| *line == old).unwrap();
    let without = [&lines[..at - 1], &lines[at + 1..]].concat().join("\n");
    let running = start(&folder, Some(Arc::new(Encryption::parse(&without).unwrap()))).await;
    assert_eq!(value(&running.secrets().get("default", "b").await.unwrap()), HUSH[2]);
    assert_eq!(value(&running.secrets().get("default", "a").await.unwrap()), HUSH[1]);
    running.stop().await;
}

#[tokio::test]
async fn a_store_from_before_encryption_opens_and_is_then_encrypted() {
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("store");
    let running = start(&folder, None).await;
    running.secrets().create(secret("a", HUSH[0])).await.unwrap();
    running.stop().await;
    assert!(!leaks(base.path(), &HUSH).is_empty(), "the search finds what is there");
    let keys = Arc::new(Encryption::parse(&Encryption::generate().unwrap()).unwrap());
    let running = start(&folder, Some(keys)).await;
    assert_eq!(value(&running.secrets().get("default", "a").await.unwrap()), HUSH[0]);
    running.stop().await;
    assert_eq!(leaks(base.path(), &HUSH), Vec::<String>::new());
    let other = Arc::new(Encryption::parse(&Encryption::generate().unwrap()).unwrap());
    let options = Options { seal: Some(other), ..Options::folder(&folder, Clock::system()) };
    assert!(Embedded::open(options).await.is_err(), "another key of the same name reads nothing");
}
