//! Pulls from a registry on loopback, with and without credentials.

use krate_runtime::cri::*;
use krate_runtime::images::{BuildSpec, CopySpec, Digest, ImageStore, PullOptions, pull};
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// `user:secret`
const CREDENTIALS: &str = "Basic dXNlcjpzZWNyZXQ=";

struct Registry {
    store: ImageStore,
    manifest: Digest,
    private: bool,
}

impl Registry {
    /// Serves `app:1` until the test ends; returns the registry's name.
    async fn start(store: ImageStore, manifest: Digest, private: bool) -> String {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let name = listener.local_addr().unwrap().to_string();
        let registry = Arc::new(Self { store, manifest, private });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let registry = registry.clone();
                tokio::spawn(async move { registry.serve(stream).await });
            }
        });
        name
    }

    async fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let (mut line, mut authorized) = (String::new(), !self.private);
            stream.read_line(&mut line).await.ok().filter(|n| *n > 0)?;
            loop {
                let mut header = String::new();
                stream.read_line(&mut header).await.ok()?;
                if header.trim().is_empty() {
                    break;
                }
                let (key, value) = header.split_once(':')?;
                authorized |= key.eq_ignore_ascii_case("authorization") && value.trim() == CREDENTIALS;
            }
            let path = line.split(' ').nth(1)?.to_owned();
            let (status, kind, body) = self.answer(&path, authorized);
            let challenge = if status == 401 { "WWW-Authenticate: Basic realm=\"test\"\r\n" } else { "" };
            let head = format!(
                "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nContent-Type: {kind}\r\n{challenge}\r\n",
                body.len()
            );
            stream.get_mut().write_all(head.as_bytes()).await.ok()?;
            stream.get_mut().write_all(&body).await.ok()?;
        }
    }

    fn answer(&self, path: &str, authorized: bool) -> (u16, &'static str, Vec<u8>) {
        const JSON: &str = "application/json";
        let error = |code: &str| format!(r#"{{"errors":[{{"code":"{code}","message":"no"}}]}}"#).into_bytes();
        if !authorized {
            return (401, JSON, error("UNAUTHORIZED"));
        }
        let manifest = "application/vnd.oci.image.manifest.v1+json";
        let digest = path.rsplit('/').next().and_then(|last| Digest::parse(last).ok());
        match digest {
            None if path == "/v2/" => (200, JSON, b"{}".to_vec()),
            None if path == "/v2/app/manifests/1" => {
                (200, manifest, self.store.blobs.read(&self.manifest).unwrap())
            }
            Some(digest) if self.store.blobs.has(&digest) => {
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut self.store.blobs.open_blob(&digest).unwrap(), &mut bytes)
                    .unwrap();
                let kind = if path.contains("/manifests/") { manifest } else { "application/octet-stream" };
                (200, kind, bytes)
            }
            _ => (404, JSON, error("MANIFEST_UNKNOWN")),
        }
    }
}

fn published(folder: &std::path::Path) -> (ImageStore, Digest, Digest) {
    let store = ImageStore::open(folder).unwrap();
    let copy = |name: &str, size: usize| CopySpec::Bytes {
        content: vec![b'x'; size].into(),
        target: name.into(),
        mode: 0o644,
    };
    let base = BuildSpec { tag: "base".into(), copies: vec![copy("/a", 3 << 20)], ..Default::default() };
    store.build(&base).unwrap();
    let spec = BuildSpec {
        tag: "app:1".into(),
        from: Some("base".into()),
        copies: vec![copy("/b", 100)],
        cmd: vec!["/a".into()],
        ..Default::default()
    };
    let image = store.build(&spec).unwrap();
    (store, image.manifest, image.id)
}

async fn pulled(
    registry: &str,
    image: &str,
    auth: Option<&AuthConfig>,
) -> (tempfile::TempDir, Arc<ImageStore>, Result<Digest>) {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(ImageStore::open(folder.path()).unwrap());
    let result = pull(&store, &format!("{registry}/{image}"), auth, &PullOptions::default()).await;
    (folder, store, result)
}

#[tokio::test]
async fn an_image_is_pulled_by_tag_and_by_digest() {
    let folder = tempfile::tempdir().unwrap();
    let (store, manifest, id) = published(folder.path());
    let registry = Registry::start(store, manifest.clone(), false).await;
    let (_folder, store, result) = pulled(&registry, "app:1", None).await;
    assert_eq!(result.unwrap(), id);
    let image = store.find(&format!("{registry}/app:1")).unwrap().unwrap();
    assert_eq!(image.digests, [format!("{registry}/app@{manifest}")]);
    let rootfs = store.lease("x", &image).unwrap();
    assert_eq!(rootfs.read("/a").unwrap().len(), 3 << 20);
    let by_digest = format!("app@{manifest}");
    assert_eq!(pulled(&registry, &by_digest, None).await.2.unwrap(), id);
    let error = pulled(&registry, "app:2", None).await.2.unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    let name = format!("{registry}/app:2");
    assert_eq!(
        error.to_string(),
        format!(
            "failed to pull and unpack image \"{name}\": failed to resolve reference \"{name}\": {name}: not found"
        )
    );
}

#[tokio::test]
async fn credentials_are_needed_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let (store, manifest, id) = published(folder.path());
    let registry = Registry::start(store, manifest, true).await;
    let user = |password: &str| AuthConfig {
        username: "user".into(),
        password: password.into(),
        ..Default::default()
    };
    for auth in [None, Some(&user("wrong"))] {
        let error = pulled(&registry, "app:1", auth).await.2.unwrap_err();
        assert!(matches!(error, Error::PermissionDenied(_)), "{error:?}");
        assert!(error.to_string().contains("pull access denied"), "{error}");
    }
    assert_eq!(pulled(&registry, "app:1", Some(&user("secret"))).await.2.unwrap(), id);
    let encoded = AuthConfig { auth: "dXNlcjpzZWNyZXQ=".into(), ..Default::default() };
    assert_eq!(pulled(&registry, "app:1", Some(&encoded)).await.2.unwrap(), id);
}

#[tokio::test]
async fn a_registry_that_does_not_answer() {
    // A port that was free a moment ago.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let registry = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = pulled(&registry, "app:1", None).await.2.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains("connection refused"), "{error}");
}
