//! What a request for a certificate asks for, and whether its signer may give that. Pure.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers>.

use super::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";

/// The subject and the names of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requested {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns: usize,
    pub emails: usize,
    pub ips: usize,
    pub uris: usize,
}

impl Requested {
    /// Reads a PEM request, whose signature must be that of its own key.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let bad = |error: &dyn std::fmt::Display| format!("unable to parse csr: {error}");
        let (_, pem) = x509_parser::pem::parse_x509_pem(text).map_err(|e| bad(&e))?;
        if pem.label != "CERTIFICATE REQUEST" {
            return Err(bad(&"PEM block type must be CERTIFICATE REQUEST"));
        }
        let (_, request) = X509CertificationRequest::from_der(&pem.contents).map_err(|e| bad(&e))?;
        let subject = &request.certification_request_info.subject;
        let text =
            |value: &x509_parser::x509::AttributeTypeAndValue<'_>| value.as_str().unwrap_or("").to_owned();
        let mut requested = Self {
            common_name: subject.iter_common_name().next().map(text).unwrap_or_default(),
            organizations: subject.iter_organization().map(text).collect(),
            ..Self::default()
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(_) => requested.dns += 1,
                    GeneralName::RFC822Name(_) => requested.emails += 1,
                    GeneralName::IPAddress(_) => requested.ips += 1,
                    GeneralName::URI(_) => requested.uris += 1,
                    _ => {}
                }
            }
        }
        Ok(requested)
    }

    /// Why the signer may not give it.
    pub fn refusal(&self, signer: &str, usages: &[String]) -> Option<String> {
        match signer {
            CLIENT => client_usages(usages),
            KUBELET_CLIENT => self
                .not_a_node()
                .or_else(|| some(self.dns > 0, "DNS subjectAltNames are not allowed"))
                .or_else(|| some(self.emails > 0, "Email subjectAltNames are not allowed"))
                .or_else(|| some(self.ips > 0, "IP subjectAltNames are not allowed"))
                .or_else(|| some(self.uris > 0, "URI subjectAltNames are not allowed"))
                .or_else(|| exactly(usages, "client auth")),
            KUBELET_SERVING => self
                .not_a_node()
                .or_else(|| some(self.dns + self.ips == 0, "DNS or IP subjectAltName is required"))
                .or_else(|| some(self.emails > 0, "Email subjectAltNames are not allowed"))
                .or_else(|| some(self.uris > 0, "URI subjectAltNames are not allowed"))
                .or_else(|| exactly(usages, "server auth")),
            _ => Some(format!("unknown signer {signer}")),
        }
    }

    fn not_a_node(&self) -> Option<String> {
        some(self.organizations != [NODES], "subject organization is not system:nodes").or_else(|| {
            let is_node = self.common_name.starts_with(NODE_PREFIX);
            some(!is_node, "subject common name does not begin with system:node: ")
        })
    }
}

fn some(wrong: bool, text: &str) -> Option<String> {
    wrong.then(|| text.to_owned())
}

/// The usage with the signature, and with or without encipherment.
fn exactly(usages: &[String], usage: &str) -> Option<String> {
    const OPTIONAL: &str = "key encipherment";
    let needed = [usage, "digital signature"];
    let all = needed.iter().all(|n| usages.iter().any(|u| u == n));
    let more = usages.iter().any(|u| !needed.contains(&u.as_str()) && u != OPTIONAL);
    let mut wanted = [needed.as_slice(), &[OPTIONAL]].concat();
    wanted.sort_unstable();
    (!all || more).then(|| format!("usages did not match [{}]", wanted.join(" ")))
}

fn client_usages(usages: &[String]) -> Option<String> {
    const WANTED: &str = "client auth";
    let allowed = |usage: &str| matches!(usage, WANTED | "digital signature" | "key encipherment");
    if let Some(other) = usages.iter().find(|u| !allowed(u)) {
        return Some(format!("invalid usage for client certificate: {other}"));
    }
    let missing = !usages.iter().any(|u| u == WANTED);
    missing.then(|| format!("missing required usage for client certificate: {WANTED}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usages(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    fn node() -> Requested {
        Requested {
            common_name: "system:node:a".to_owned(),
            organizations: vec![NODES.to_owned()],
            ..Requested::default()
        }
    }

    #[test]
    fn each_signer_gives_what_it_is_for() {
        let client = usages("digital signature,client auth");
        let serving = usages("digital signature,key encipherment,server auth");
        assert_eq!(node().refusal(KUBELET_CLIENT, &client), None);
        assert_eq!(Requested { ips: 1, ..node() }.refusal(KUBELET_SERVING, &serving), None);
        assert_eq!(Requested::default().refusal(CLIENT, &client), None);
        let cases = [
            (node(), KUBELET_SERVING, &serving, "DNS or IP subjectAltName is required"),
            (Requested { ips: 1, ..node() }, KUBELET_CLIENT, &client, "IP subjectAltNames are not allowed"),
            (
                Requested { dns: 1, ..node() },
                KUBELET_SERVING,
                &client,
                "usages did not match [digital signature key encipherment server auth]",
            ),
            (Requested::default(), KUBELET_CLIENT, &client, "subject organization is not system:nodes"),
            (
                Requested { common_name: "a".into(), ..node() },
                KUBELET_CLIENT,
                &client,
                "subject common name does not begin with system:node: ",
            ),
            (node(), CLIENT, &serving, "invalid usage for client certificate: server auth"),
        ];
        for (requested, signer, usages, why) in cases {
            assert_eq!(requested.refusal(signer, usages).as_deref(), Some(why));
        }
    }

    #[test]
    fn what_is_no_request_is_told() {
        assert!(Requested::parse(b"x").unwrap_err().starts_with("unable to parse csr"));
    }
}
