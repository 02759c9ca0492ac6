//! What every namespace is given: the service account `default`, and the authority of the API as a
//! ConfigMap; and the tokens of service accounts that are kept in Secrets.

use crate::env::{Env, SecretToken, SignToken, synced, wake_due};
use crate::meta;
use k8s_openapi::ByteString;
use krate_api::Status;
use krate_api::types::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount};
use krate_client::api::delete_uid;
use krate_client::{Api, Informer, Outcome, Queue, Source};
use std::collections::BTreeMap;
use std::sync::Arc;

const DEFAULT_ACCOUNT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const ROOT_CA_DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when \
     using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
     guaranteed across distributions of Kubernetes clusters.";
const TOKEN_SECRET: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// Adds the name of every namespace that is new or changed, and of those in which an object named `only`
/// changed.
fn per_namespace<K: krate_api::Kind>(
    queue: &Queue,
    namespaces: &Informer<Namespace>,
    objects: &Informer<K>,
    only: &'static str,
) {
    wake_due(namespaces, queue, |_| true);
    let q = queue.clone();
    objects.subscribe(move |old, new| {
        if let Some(object) = new.or(old).filter(|o| meta::name(o.meta()) == only) {
            q.add(meta::namespace(object.meta()));
        }
    });
}

/// Whether things may still be made in a namespace.
fn is_open(namespaces: &Informer<Namespace>, name: &str) -> bool {
    let is_active = |n: &Arc<Namespace>| {
        n.metadata.deletion_timestamp.is_none()
            && n.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Terminating")
    };
    namespaces.get(name).as_ref().is_some_and(is_active)
}

/// Somebody else was faster, or the namespace went: both are fine.
fn created<T>(result: Result<T, Status>) -> Result<(), Status> {
    match result {
        Err(status)
            if !status.is_already_exists()
                && !meta::namespace_is_terminating(&status)
                && !status.is_not_found() =>
        {
            Err(status)
        }
        _ => Ok(()),
    }
}

/// Keeps a service account `default` in every namespace.
pub fn start_service_accounts(env: &Env) {
    const ACCOUNT: &str = "service-account-controller";
    let (namespaces, accounts) = (env.informers.of::<Namespace>(), env.informers.of::<ServiceAccount>());
    let queue: Queue = env.queue("serviceaccount");
    per_namespace(&queue, &namespaces, &accounts, DEFAULT_ACCOUNT);
    let api: Api<ServiceAccount> = env.api(ACCOUNT);
    env.run(&queue, 1, synced!(namespaces, accounts), move |name: String| {
        let (namespaces, accounts, api) = (namespaces.clone(), accounts.clone(), api.clone());
        async move {
            let key = krate_api::object::key(&name, DEFAULT_ACCOUNT);
            if is_open(&namespaces, &name) && accounts.get(&key).is_none() {
                let mut account = ServiceAccount::default();
                account.metadata.namespace = Some(name);
                account.metadata.name = Some(DEFAULT_ACCOUNT.to_owned());
                created(api.create(account).await)?;
            }
            Ok::<_, Status>(Outcome::Done)
        }
    });
}

/// Keeps the ConfigMap `kube-root-ca.crt` in every namespace.
pub fn start_root_ca(env: &Env) {
    const ACCOUNT: &str = "root-ca-cert-publisher";
    let namespaces = env.informers.of::<Namespace>();
    let source = Source::of::<ConfigMap>().fields(&format!("metadata.name={ROOT_CA}"));
    let configs = env.informers.get::<ConfigMap>(source);
    let queue: Queue = env.queue("root_ca_cert_publisher");
    per_namespace(&queue, &namespaces, &configs, ROOT_CA);
    let api: Api<ConfigMap> = env.api(ACCOUNT);
    let pem = env.cluster.ca_pem.clone();
    env.run(&queue, 1, synced!(namespaces, configs), move |name: String| {
        let (namespaces, configs, api) = (namespaces.clone(), configs.clone(), api.clone());
        let wanted = root_ca(&name, &pem);
        async move {
            if !is_open(&namespaces, &name) {
                return Ok(Outcome::Done);
            }
            match configs.get(&krate_api::object::key(&name, ROOT_CA)) {
                None => created(api.create(wanted).await)?,
                Some(present)
                    if present.data != wanted.data
                        || meta::annotation(&present.metadata, DESCRIPTION) != Some(ROOT_CA_DESCRIPTION) =>
                {
                    let mut fixed = (*present).clone();
                    fixed.data = wanted.data;
                    let annotations = fixed.metadata.annotations.get_or_insert_default();
                    annotations.insert(DESCRIPTION.to_owned(), ROOT_CA_DESCRIPTION.to_owned());
                    created(api.update(fixed).await)?;
                }
                Some(_) => {}
            }
            Ok::<_, Status>(Outcome::Done)
        }
    });
}

fn root_ca(namespace: &str, pem: &str) -> ConfigMap {
    let mut config = ConfigMap::default();
    config.metadata.namespace = Some(namespace.to_owned());
    config.metadata.name = Some(ROOT_CA.to_owned());
    config.metadata.annotations = Some([(DESCRIPTION.to_owned(), ROOT_CA_DESCRIPTION.to_owned())].into());
    config.data = Some([("ca.crt".to_owned(), pem.to_owned())].into());
    config
}

/// Secrets of type `kubernetes.io/service-account-token`: filled for an account that exists, removed with it.
struct Tokens {
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
    api: Api<Secret>,
    account_api: Api<ServiceAccount>,
    sign: Option<SignToken>,
    ca_pem: String,
}

pub fn start_tokens(env: &Env) {
    let accounts = env.informers.of::<ServiceAccount>();
    let secrets = env.informers.get::<Secret>(Source::of::<Secret>().fields(&format!("type={TOKEN_SECRET}")));
    let queue: Queue = env.queue("serviceaccount_tokens");
    let by_account = secrets.index("account", |secret: &Secret| {
        let account = meta::annotation(&secret.metadata, ACCOUNT_NAME).unwrap_or_default();
        vec![krate_api::object::key(meta::namespace(&secret.metadata), account)]
    });
    wake_due(&secrets, &queue, |_| true);
    let q = queue.clone();
    accounts.subscribe(move |old, new| {
        if let Some(account) = new.or(old).filter(|_| old.is_none() || new.is_none()) {
            by_account.keys(&meta::key(&account.metadata)).into_iter().for_each(|key| q.add(key));
        }
    });
    let tokens = Arc::new(Tokens {
        secrets: secrets.clone(),
        accounts: accounts.clone(),
        api: env.api(crate::env::MANAGER),
        account_api: env.api(crate::env::MANAGER),
        sign: env.sign.clone(),
        ca_pem: env.cluster.ca_pem.clone(),
    });
    env.run(&queue, 1, synced!(secrets, accounts), move |key: String| {
        let tokens = tokens.clone();
        async move { tokens.reconcile(&key).await }
    });
}

impl Tokens {
    async fn reconcile(&self, key: &str) -> Result<Outcome, Status> {
        let Some(secret) = self.secrets.get(key) else { return Ok(Outcome::Done) };
        let name = meta::annotation(&secret.metadata, ACCOUNT_NAME).unwrap_or_default();
        let uid = meta::annotation(&secret.metadata, ACCOUNT_UID);
        if name.is_empty() || secret.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let namespace = meta::namespace(&secret.metadata);
        let fits = |a: &Arc<ServiceAccount>| uid.is_none_or(|uid| uid == meta::uid(&a.metadata));
        let mut account = self.accounts.get(&krate_api::object::key(namespace, name)).filter(fits);
        if account.is_none() {
            // Only the API itself says for sure that it is gone.
            account = self.account_api.get_opt(namespace, name).await?.filter(fits);
        }
        let written = match account {
            None => {
                let metadata = &secret.metadata;
                let options = delete_uid(meta::uid(metadata));
                self.api.delete(namespace, meta::name(metadata), options).await
            }
            Some(account) => match self.filled(&secret, &account) {
                Some(filled) => self.api.update(filled).await.map(drop),
                None => Ok(()),
            },
        };
        match written {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(Outcome::Done),
        }
    }

    /// The Secret with everything that it should hold, if anything is missing.
    fn filled(&self, secret: &Secret, account: &ServiceAccount) -> Option<Secret> {
        let sign = self.sign.as_ref()?;
        let mut filled = secret.clone();
        let annotations = filled.metadata.annotations.get_or_insert_default();
        annotations.insert(ACCOUNT_UID.to_owned(), meta::uid(&account.metadata).to_owned());
        let namespace = meta::namespace(&secret.metadata).to_owned();
        let data: &mut BTreeMap<String, ByteString> = filled.data.get_or_insert_default();
        data.insert("ca.crt".to_owned(), ByteString(self.ca_pem.clone().into_bytes()));
        data.insert("namespace".to_owned(), ByteString(namespace.clone().into_bytes()));
        if data.get("token").is_none_or(|t| t.0.is_empty()) {
            let token = sign(&SecretToken {
                namespace,
                account: meta::name(&account.metadata).to_owned(),
                account_uid: meta::uid(&account.metadata).to_owned(),
                secret: meta::name(&secret.metadata).to_owned(),
            });
            data.insert("token".to_owned(), ByteString(token.into_bytes()));
        }
        (filled != *secret).then_some(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Cluster;
    use crate::world::World;

    fn namespace(w: &World, name: &str) {
        let mut object = Namespace::default();
        object.metadata.name = Some(name.to_owned());
        w.fake.put(&object);
    }

    #[tokio::test(start_paused = true)]
    async fn every_namespace_has_its_account_and_the_authority() {
        let cluster = Cluster { ca_pem: "PEM".to_owned(), ..Cluster::default() };
        let w = World::with(cluster, &[start_service_accounts, start_root_ca]);
        namespace(&w, "a");
        namespace(&w, "b");
        w.settle().await;
        assert_eq!(w.names::<ServiceAccount>(), ["default", "default"]);
        w.fake.remove::<ServiceAccount>("a", "default");
        let mut spoiled = (*w.fake.get::<ConfigMap>("b", ROOT_CA).unwrap()).clone();
        spoiled.data = None;
        w.fake.put(&spoiled);
        w.settle().await;
        assert_eq!(w.names::<ServiceAccount>(), ["default", "default"]);
        assert_eq!(w.fake.get::<ConfigMap>("b", ROOT_CA).unwrap().data.as_ref().unwrap()["ca.crt"], "PEM");
        let _ = w.fake.take_writes();
        w.pass(3600).await;
        assert_eq!(w.fake.take_writes(), Vec::<String>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn token_secrets_are_filled_and_go_with_their_account() {
        let w = World::new(&[start_tokens]);
        let mut account = ServiceAccount::default();
        crate::world::named(&mut account, "robot");
        w.fake.put(&account);
        let mut secret = Secret::default();
        crate::world::named(&mut secret, "robot-token");
        secret.type_ = Some(TOKEN_SECRET.to_owned());
        secret.metadata.annotations = Some([(ACCOUNT_NAME.to_owned(), "robot".to_owned())].into());
        w.fake.put(&secret);
        w.settle().await;
        let filled = w.fake.get::<Secret>("default", "robot-token").unwrap();
        assert_eq!(filled.data.as_ref().unwrap()["token"].0, b"token of default/robot");
        w.fake.remove::<ServiceAccount>("default", "robot");
        w.settle().await;
        assert!(w.names::<Secret>().is_empty());
    }
}
