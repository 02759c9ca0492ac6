//! How a node joins a server with a token: it gets to know the server's authority by the digest of its key,
//! asks with the token for the certificate of a kubelet, and with that for what else a node needs. The server's
//! controllers approve and sign.
//!
//! The server's half is the token (a bootstrap token, kept in a Secret as everywhere) and the rights of those
//! who come with one.

use super::addons::{self, NETWORK_USER};
use super::identity::{self, write_private};
use crate::ui::{Explain, Failure, Outcome};
use futures::StreamExt as _;
use krate_api::k8s_openapi::ByteString;
use krate_api::meta::ObjectMeta;
use krate_api::types::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use krate_api::types::core::v1::Secret;
use krate_apiserver::{Authority, pki};
use krate_client::kubeconfig::{Entry, with_entry};
use krate_client::remote::{Remote, RemoteConfig};
use krate_client::{Api, Options, Transport, WatchEvent, pinned};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The group of those who come with the server's own token.
const JOINERS: &str = "system:bootstrappers:krate:default-node-token";
/// The file with the token in the server's data folder.
const TOKEN_FILE: &str = "node-token";
/// How long the server may take to answer a request for a certificate.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a node was given to join with.
pub struct Invitation<'a> {
    /// `https://host:port`.
    pub server: &'a str,
    pub token: &'a str,
    /// `sha256:` and the digest of the authority's key.
    pub ca_cert_hash: &'a str,
}

/// Makes the server take nodes with a token, which is made once and kept; returns what to tell them.
pub async fn invite(
    admin: Arc<dyn Transport>,
    authority: &Authority,
    data_dir: &Path,
    server: &str,
) -> Outcome<String> {
    let file = data_dir.join(TOKEN_FILE);
    let token = match std::fs::read_to_string(&file) {
        Ok(token) => token.trim().to_owned(),
        Err(_) => {
            let token = new_token()?;
            write_private(&file, token.as_bytes())?;
            token
        }
    };
    let next = "Remove the file node-token in the data folder, and start again.";
    let (id, secret) = token
        .split_once('.')
        .ok_or_else(|| Failure::new(format!("{} does not hold a token", file.display()), next))?;
    addons::present(Api::new(admin.clone()).create(token_secret(id, secret)).await)
        .explain("the token for nodes cannot be kept", next)?;
    addons::install_join(admin, JOINERS).await?;
    let hash = pinned::key_hash(authority.ca_certificate().as_bytes()).explain("internal error", "")?;
    Ok(format!("krate agent --server {server} --token {token} --ca-cert-hash {hash}"))
}

/// `id.secret`, of letters and digits that the kernel chose.
fn new_token() -> Outcome<String> {
    const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut bytes = [0_u8; 22];
    pki::random(&mut bytes).explain("the kernel gives no random numbers", "")?;
    let text: String = bytes.iter().map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()])).collect();
    let (id, secret) = text.split_at(6);
    Ok(format!("{id}.{secret}"))
}

fn token_secret(id: &str, secret: &str) -> Secret {
    let data = [
        ("token-id", id),
        ("token-secret", secret),
        ("usage-bootstrap-authentication", "true"),
        ("auth-extra-groups", JOINERS),
        ("description", "The token by which nodes join this server."),
    ];
    Secret {
        metadata: ObjectMeta {
            name: Some(format!("bootstrap-token-{id}")),
            namespace: Some("kube-system".to_owned()),
            ..ObjectMeta::default()
        },
        type_: Some("bootstrap.kubernetes.io/token".to_owned()),
        data: Some(data.map(|(k, v)| (k.to_owned(), ByteString(v.as_bytes().to_vec()))).into()),
        ..Secret::default()
    }
}

/// Gets a node its identities, and writes them where [`identity`] says. What is there already is kept, so a join
/// that was interrupted goes on.
pub async fn join(invitation: &Invitation<'_>, dir: &Path, node: &str, address: IpAddr) -> Outcome<()> {
    let next = "Take the command from the server's log, and check that this host reaches the server.";
    let ca = pinned::authority(invitation.server, invitation.ca_cert_hash).await;
    let ca = ca.explain("the server cannot be verified", next)?;
    let door =
        |token: Option<&str>, kubeconfig: Option<&Path>| remote(invitation.server, &ca, token, kubeconfig);
    let user = format!("system:node:{node}");
    let kubelet = dir.join(identity::KUBECONFIG);
    if !kubelet.exists() {
        let asks = Asks { signer: "kubernetes.io/kube-apiserver-client-kubelet", usage: "client auth" };
        let pair =
            asks.certificate(door(Some(invitation.token), None)?, &user, &["system:nodes"], &[]).await?;
        write_entry(&kubelet, node, invitation.server, &ca, &pair)?;
    }
    let network = dir.join(identity::NETWORK_KUBECONFIG);
    if !network.exists() {
        let asks = Asks { signer: "kubernetes.io/kube-apiserver-client", usage: "client auth" };
        let pair = asks.certificate(door(None, Some(&kubelet))?, NETWORK_USER, &[], &[]).await?;
        write_entry(&network, node, invitation.server, &ca, &pair)?;
    }
    if !dir.join(identity::SERVING_KEY).exists() {
        let asks = Asks { signer: "kubernetes.io/kubelet-serving", usage: "server auth" };
        let names = [node.to_owned(), address.to_string()];
        let pair = asks.certificate(door(None, Some(&kubelet))?, &user, &["system:nodes"], &names).await?;
        write_private(&dir.join(identity::SERVING_CERT), pair.certificate.as_bytes())?;
        write_private(&dir.join(identity::SERVING_KEY), pair.key.as_bytes())?;
    }
    write_private(&dir.join(identity::CLIENT_CA), ca.as_bytes())
}

fn remote(server: &str, ca: &str, token: Option<&str>, kubeconfig: Option<&Path>) -> Outcome<Arc<Remote>> {
    let next = "Check the rights of the data folder.";
    let mut config = match kubeconfig {
        Some(path) => {
            let text = std::fs::read_to_string(path).explain("the node's kubeconfig cannot be read", next)?;
            krate_client::kubeconfig::remote_config(&text, None)
                .explain("the node's kubeconfig is damaged", next)?
        }
        None => RemoteConfig {
            server: server.to_owned(),
            ca_pem: ca.as_bytes().to_vec(),
            token: token.map(str::to_owned),
            ..RemoteConfig::default()
        },
    };
    config.user_agent = "krate-agent".to_owned();
    Ok(Arc::new(Remote::new(&config).explain("the server's address cannot be used", next)?))
}

fn write_entry(path: &Path, name: &str, server: &str, ca: &str, pair: &pki::Pair) -> Outcome<()> {
    let entry = Entry {
        name,
        server,
        ca_pem: ca.as_bytes(),
        cert_pem: pair.certificate.as_bytes(),
        key_pem: pair.key.as_bytes(),
    };
    let text = with_entry("", &entry).explain("a kubeconfig cannot be made", "")?;
    write_private(path, text.as_bytes())
}

/// A sort of certificate.
struct Asks {
    signer: &'static str,
    usage: &'static str,
}

impl Asks {
    /// Asks for a certificate, and waits until it is signed or refused.
    async fn certificate(
        &self,
        door: Arc<Remote>,
        user: &str,
        groups: &[&str],
        names: &[String],
    ) -> Outcome<pki::Pair> {
        let (request, key) = pki::request(user, groups, names).explain("a request cannot be made", "")?;
        let object = CertificateSigningRequest {
            metadata: ObjectMeta { generate_name: Some("csr-".to_owned()), ..ObjectMeta::default() },
            spec: CertificateSigningRequestSpec {
                request: ByteString(request.into_bytes()),
                signer_name: self.signer.to_owned(),
                usages: Some(vec!["digital signature".to_owned(), self.usage.to_owned()]),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        };
        let api: Api<CertificateSigningRequest> = Api::new(door);
        let refused = "the server does not take this node";
        let made = api.create(object).await.explain(refused, "Is the token still good?")?;
        let name = made.metadata.name.clone().unwrap_or_default();
        let next = format!("See `kubectl describe csr {name}` on the server.");
        let answer = tokio::time::timeout(PATIENCE, answer(&api, &name)).await;
        let certificate = answer
            .explain("the server did not sign the node's certificate in time", &next)?
            .map_err(|why| Failure::new(format!("{refused}: {why}"), next))?;
        Ok(pki::Pair { certificate, key })
    }
}

/// The certificate, or why there will be none.
async fn answer(api: &Api<CertificateSigningRequest>, name: &str) -> Result<String, String> {
    let options = Options {
        field_selector: format!("metadata.name={name}"),
        resource_version: "0".to_owned(),
        ..Options::default()
    };
    loop {
        let mut watch = api.watch("", options.clone()).await.map_err(|e| e.to_string())?;
        while let Some(Ok(event)) = watch.next().await {
            let (WatchEvent::Added(shared) | WatchEvent::Modified(shared)) = event else { continue };
            let request = shared.typed::<CertificateSigningRequest>().map_err(|e| e.to_string())?;
            let status = request.status.clone().unwrap_or_default();
            if let Some(certificate) = status.certificate.filter(|c| !c.0.is_empty()) {
                return String::from_utf8(certificate.0).map_err(|e| e.to_string());
            }
            let refusal = |kind: &str| matches!(kind, "Denied" | "Failed");
            if let Some(c) = status.conditions.into_iter().flatten().find(|c| refusal(&c.type_)) {
                return Err(format!("{}: {}", c.type_, c.message.unwrap_or_default()));
            }
        }
    }
}
