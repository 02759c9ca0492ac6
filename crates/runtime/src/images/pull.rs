//! Images from registries.
//!
//! HTTPS, except for loopback addresses and registries that the configuration calls insecure, which are
//! spoken to over plain HTTP. Errors are worded as users of Kubernetes know them, because they end up in
//! events. What was downloaded before a failure stays in the store until the next collection, so that the
//! next try goes on from there.

use super::blobs::Digest;
use super::config::{DOCKER_LIST, DOCKER_MANIFEST, Descriptor, Document, OCI_INDEX, OCI_MANIFEST, choose};
use super::reference::Reference;
use super::store::ImageStore;
use crate::cri::{AuthConfig, Error, Result};
use futures::stream::{StreamExt, TryStreamExt};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference as OciReference};
use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Layers of one image that are downloaded at a time.
const PARALLEL_LAYERS: usize = 3;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// A download that stands still this long has failed.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// `host` or `host:port` of registries that are spoken to over plain HTTP.
    pub insecure_registries: Vec<String>,
}

/// Pulls an image into the store and returns its id.
pub async fn pull(
    store: &Arc<ImageStore>,
    image: &str,
    auth: Option<&AuthConfig>,
    options: &PullOptions,
) -> Result<Digest> {
    let name = Reference::parse(image)?;
    let _adding = blocking({
        let store = store.clone();
        move || store.adding()
    })
    .await?;
    let session = Session::new(store.clone(), &name, auth, options)?;
    let target = session.documents().await.map_err(|failure| failure.explain(&name))?;
    let names = match &name.tag {
        Some(tag) => vec![
            Reference { digest: None, tag: Some(tag.clone()), ..name.clone() },
            name.at_digest(target.as_str()),
        ],
        None => vec![name.at_digest(target.as_str())],
    };
    let store = store.clone();
    blocking(move || store.publish(&target, &names)).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::io("image work", error))?
}

/// What went wrong, and at which of the two stages.
enum Failure {
    Resolve(OciDistributionError),
    Fetch(OciDistributionError),
    Store(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

#[derive(Clone)]
struct Session {
    client: Client,
    auth: RegistryAuth,
    image: OciReference,
    store: Arc<ImageStore>,
}

impl Session {
    fn new(
        store: Arc<ImageStore>,
        name: &Reference,
        auth: Option<&AuthConfig>,
        options: &PullOptions,
    ) -> Result<Self> {
        // Fails when a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let plain = loopback(&name.domain) || options.insecure_registries.contains(&name.domain);
        let client = Client::new(ClientConfig {
            protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
            platform_resolver: None,
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(STALL_TIMEOUT),
            user_agent: concat!("krate/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        });
        let image = name.to_string().parse().map_err(|error| Error::InvalidArgument(format!("{error}")))?;
        Ok(Self { client, auth: credentials(auth)?, image, store })
    }

    /// Fetches the manifest (of this platform), the configuration and the layers. Returns what the name
    /// points at.
    async fn documents(&self) -> std::result::Result<Digest, Failure> {
        let (target, bytes) = self.manifest(&self.image).await?;
        let manifest = match parse(&target, &bytes)? {
            Document::Manifest(manifest) => manifest,
            Document::Index(index) => {
                let Some(chosen) = choose(&index) else {
                    let platform = super::config::architecture();
                    let text =
                        format!("no match for platform in manifest: linux/{platform} is not in {target}");
                    return Err(Error::NotFound(text).into());
                };
                let reference = self.image.clone_with_digest(chosen.digest.clone());
                let (digest, bytes) = self.manifest(&reference).await?;
                match parse(&digest, &bytes)? {
                    Document::Manifest(manifest) => manifest,
                    Document::Index(_) => {
                        return Err(Error::InvalidArgument("an index of indexes".into()).into());
                    }
                }
            }
        };
        let blobs = manifest.layers.into_iter().chain([manifest.config]);
        futures::stream::iter(blobs.map(|blob| self.clone().blob(blob)))
            .buffer_unordered(PARALLEL_LAYERS)
            .try_collect::<()>()
            .await?;
        Ok(target)
    }

    async fn manifest(&self, image: &OciReference) -> std::result::Result<(Digest, Vec<u8>), Failure> {
        const ACCEPTED: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];
        let (bytes, digest) =
            self.client.pull_manifest_raw(image, &self.auth, &ACCEPTED).await.map_err(Failure::Resolve)?;
        let (store, bytes) = (self.store.clone(), bytes.to_vec());
        let (found, bytes) = blocking(move || Ok((store.blobs.put(&bytes)?, bytes))).await?;
        if Digest::parse(&digest)? != found {
            return Err(Error::InvalidArgument(format!("the registry sent {found} for {digest}")).into());
        }
        Ok((found, bytes))
    }

    async fn blob(self, blob: Descriptor) -> std::result::Result<(), Failure> {
        let digest = Digest::parse(&blob.digest)?;
        if self.store.blobs.has(&digest) {
            return Ok(());
        }
        let descriptor = oci_client::manifest::OciDescriptor {
            media_type: blob.media_type.clone(),
            digest: blob.digest.clone(),
            size: i64::try_from(blob.size).unwrap_or(i64::MAX),
            ..Default::default()
        };
        let stream = self.client.pull_blob_stream(&self.image, &descriptor).await;
        let mut stream = stream.map_err(Failure::Fetch)?.stream;
        let (store, handle) = (self.store, tokio::runtime::Handle::current());
        let written = blocking(move || {
            let mut writer = store.blobs.writer()?;
            while let Some(chunk) = handle.block_on(stream.next()) {
                let chunk = match chunk {
                    Ok(chunk) => chunk,
                    Err(error) => return Ok(Err(OciDistributionError::IoError(error))),
                };
                writer.write_all(&chunk).map_err(|error| Error::io("write a layer", error))?;
            }
            writer.commit(Some(&digest))?;
            Ok(Ok(()))
        });
        written.await?.map_err(Failure::Fetch)
    }
}

fn parse(digest: &Digest, bytes: &[u8]) -> Result<Document> {
    Document::parse(bytes)
        .map_err(|error| Error::InvalidArgument(format!("invalid manifest {digest}: {error}")))
}

fn loopback(domain: &str) -> bool {
    let host =
        domain.rsplit_once(':').map_or(domain, |(host, port)| if port.contains(']') { domain } else { host });
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn credentials(auth: Option<&AuthConfig>) -> Result<RegistryAuth> {
    use base64::Engine;
    let Some(auth) = auth else { return Ok(RegistryAuth::Anonymous) };
    if !auth.registry_token.is_empty() {
        return Ok(RegistryAuth::Bearer(auth.registry_token.clone()));
    }
    if !auth.username.is_empty() {
        return Ok(RegistryAuth::Basic(auth.username.clone(), auth.password.clone()));
    }
    if auth.auth.is_empty() {
        return Ok(RegistryAuth::Anonymous);
    }
    let bad = || Error::InvalidArgument("invalid auth: not base64 of username:password".into());
    let bytes = base64::engine::general_purpose::STANDARD.decode(&auth.auth).map_err(|_| bad())?;
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    let (user, password) = text.split_once(':').ok_or_else(bad)?;
    Ok(RegistryAuth::Basic(user.to_owned(), password.trim_end_matches('\0').to_owned()))
}

impl Failure {
    /// The sentence for events, in the words that people search for.
    fn explain(self, name: &Reference) -> Error {
        let (stage, error) = match self {
            Self::Store(error) => return error,
            Self::Resolve(error) => (format!("failed to resolve reference \"{name}\": "), error),
            Self::Fetch(error) => ("failed to copy: ".to_owned(), error),
        };
        let prefix = format!("failed to pull and unpack image \"{name}\": {stage}");
        let denied = "pull access denied, repository does not exist or may require authorization: authorization failed";
        match error {
            OciDistributionError::ImageManifestNotFoundError(_) => {
                Error::NotFound(format!("{prefix}{name}: not found"))
            }
            OciDistributionError::ServerError { code: 404, .. } => {
                Error::NotFound(format!("{prefix}{name}: not found"))
            }
            OciDistributionError::UnauthorizedError { .. }
            | OciDistributionError::AuthenticationFailure(_) => {
                Error::PermissionDenied(format!("{prefix}{denied}: no basic auth credentials"))
            }
            OciDistributionError::ServerError { code: 401 | 403, .. } => {
                Error::PermissionDenied(format!("{prefix}{denied}"))
            }
            OciDistributionError::RegistryError { envelope, .. } => registry_error(&prefix, name, &envelope),
            OciDistributionError::ServerError { code, url, message } => {
                let text = message.lines().next().unwrap_or_default();
                Error::Unavailable(format!(
                    "{prefix}unexpected status from GET request to {url}: {code} {text}"
                ))
            }
            error => Error::Unavailable(format!("{prefix}failed to do request: {}", root_cause(&error))),
        }
    }
}

fn registry_error(prefix: &str, name: &Reference, envelope: &oci_client::errors::OciEnvelope) -> Error {
    use oci_client::errors::OciErrorCode as Code;
    let Some(first) = envelope.errors.first() else {
        return Error::Unavailable(format!("{prefix}empty answer"));
    };
    match first.code {
        Code::ManifestUnknown | Code::NameUnknown | Code::BlobUnknown | Code::NotFound => {
            Error::NotFound(format!("{prefix}{name}: not found"))
        }
        Code::Unauthorized | Code::Denied => Error::PermissionDenied(format!(
            "{prefix}pull access denied, repository does not exist or may require authorization: {}",
            first.message
        )),
        _ => Error::Unavailable(format!("{prefix}{}", first.message)),
    }
}

/// The innermost error says what happened (`connection refused`), the outer ones what was tried.
fn root_cause(error: &dyn std::error::Error) -> String {
    let outer = error.to_string();
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    let cause = inner.to_string();
    let cause = if cause.contains("os error 111") { "connect: connection refused".to_owned() } else { cause };
    if outer.contains(&cause) { outer } else { format!("{outer}: {cause}") }
}
