//! Certificates and kubeconfigs of those who reach the API over the wire.

use super::addons::NETWORK_USER;
use crate::cluster::{Cluster, Spec};
use crate::ui::{Explain, Outcome};
use krate_apiserver::Authority;
use krate_base::Clock;
use krate_client::kubeconfig::{Entry, with_entry};
use std::net::IpAddr;
use std::path::Path;

/// Names of the files of a node's identity, in the node's folder.
pub const KUBECONFIG: &str = "kubeconfig";
pub const NETWORK_KUBECONFIG: &str = "network.kubeconfig";
pub const SERVING_CERT: &str = "kubelet.crt";
pub const SERVING_KEY: &str = "kubelet.key";
pub const CLIENT_CA: &str = "ca.crt";

/// Name of the authority's folder in the server's.
pub const PKI: &str = "pki";

const NEXT: &str = "Check the rights and the free space of the data folder.";

/// Writes a file that only its owner reads, atomically.
pub fn write_private(path: &Path, bytes: &[u8]) -> Outcome<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let what = format!("{} cannot be written", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).explain(&what, NEXT)?;
    }
    let temporary = path.with_extension("new");
    let mut options = std::fs::File::options();
    let file = options.create(true).write(true).truncate(true).mode(0o600).open(&temporary);
    let mut file = file.explain(&what, NEXT)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).explain(&what, NEXT)?;
    std::fs::rename(&temporary, path).explain(&what, NEXT)
}

/// Writes a kubeconfig with a client certificate of its own; an empty `group` is none.
pub fn write_kubeconfig(
    authority: &Authority,
    path: &Path,
    name: &str,
    server: &str,
    user: &str,
    group: &str,
) -> Outcome<()> {
    let groups: &[&str] = if group.is_empty() { &[] } else { &[group] };
    let pair = authority.client(user, groups).explain("a certificate cannot be made", "")?;
    let entry = Entry {
        name,
        server,
        ca_pem: authority.ca_certificate().as_bytes(),
        cert_pem: pair.certificate.as_bytes(),
        key_pem: pair.key.as_bytes(),
    };
    let text = with_entry("", &entry).explain("a kubeconfig cannot be made", "")?;
    write_private(path, text.as_bytes())
}

/// What a node of `krate up` needs to join: who it is, and the certificate that its kubelet serves with.
pub fn write_node(cluster: &Cluster, spec: &Spec, node: &str, address: IpAddr) -> Outcome<()> {
    let dir = cluster.node_dir(node);
    if dir.join(CLIENT_CA).exists() {
        return Ok(());
    }
    let authority = Authority::load_or_create(&cluster.server_dir().join(PKI), &Clock::system())
        .explain("the cluster's authority cannot be read", "See `krate logs`.")?;
    let server = format!("https://{}:{}", spec.node_ip(0), super::control::PORT);
    let user = format!("system:node:{node}");
    write_kubeconfig(&authority, &dir.join(KUBECONFIG), node, &server, &user, "system:nodes")?;
    let network = dir.join(NETWORK_KUBECONFIG);
    write_kubeconfig(&authority, &network, node, &server, NETWORK_USER, "")?;
    write_serving(&authority, &dir, node, address)?;
    write_private(&dir.join(CLIENT_CA), authority.ca_certificate().as_bytes())
}

/// The certificate that a kubelet serves with.
pub fn write_serving(authority: &Authority, dir: &Path, node: &str, address: IpAddr) -> Outcome<()> {
    let names = [node.to_owned(), address.to_string()];
    let pair = authority
        .serving(&format!("system:node:{node}"), &names)
        .explain("a certificate cannot be made", "")?;
    write_private(&dir.join(SERVING_CERT), pair.certificate.as_bytes())?;
    write_private(&dir.join(SERVING_KEY), pair.key.as_bytes())
}
