//! The way from one incarnation of a component to the API server that runs at the moment: where requests are
//! spoiled and watches are cut, and where everything ends when either side is killed.

use super::{Fault, Faults, HANG, reset, timeout};
use async_trait::async_trait;
use futures::StreamExt;
use krate_api::{Reason, Status};
use krate_apiserver::{ApiServer, UserInfo};
use krate_base::Shutdown;
use krate_client::{Body, Options, PatchKind, Reply, Request, Transport, Verb, WatchStream};
use parking_lot::RwLock;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// The API server of a cluster, which comes and goes.
#[derive(Clone, Default)]
pub(crate) struct Servers(Arc<RwLock<Option<(ApiServer, Shutdown)>>>);

impl Servers {
    /// Takes a server into service. Every watch through this door ends with `life`.
    pub(crate) fn open(&self, server: ApiServer, life: Shutdown) {
        *self.0.write() = Some((server, life));
    }

    /// Nobody is reached any more.
    pub(crate) fn close(&self) {
        if let Some((_, life)) = self.0.write().take() {
            life.cancel();
        }
    }

    pub(crate) fn current(&self) -> Option<ApiServer> {
        self.0.read().as_ref().map(|(server, _)| server.clone())
    }

    fn reach(&self, user: &UserInfo) -> Result<(Arc<dyn Transport>, Shutdown), Status> {
        let current = self.0.read();
        let refused = || Status::failure(Reason::ServiceUnavailable, "connection refused");
        let (server, life) = current.as_ref().ok_or_else(refused)?;
        Ok((server.transport(user.clone()), life.clone()))
    }
}

/// The transport of one incarnation of a component.
pub(crate) struct Wire {
    pub servers: Servers,
    pub user: UserInfo,
    /// By which name faults are found; none is spared.
    pub identity: Option<String>,
    pub faults: Faults,
    /// The incarnation was killed: nothing that it does arrives any more.
    pub killed: Shutdown,
}

#[async_trait]
impl Transport for Wire {
    async fn send(&self, request: Request) -> Result<Reply, Status> {
        tokio::select! {
            biased;
            () = self.killed.cancelled() => Err(reset()),
            reply = self.ask(request) => {
                if let Ok(Reply::List { revision, .. }) = &reply {
                    self.faults.note(*revision);
                }
                reply
            }
        }
    }

    async fn watch(&self, request: Request) -> Result<WatchStream, Status> {
        if self.killed.is_cancelled() {
            return Err(reset());
        }
        let Some(identity) = &self.identity else {
            return self.servers.reach(&self.user)?.0.watch(request).await;
        };
        if let Some(fault) = self.faults.of_request(identity, &request) {
            self.suffer(fault, &request).await?;
        }
        self.travel().await;
        let (to, life) = self.servers.reach(&self.user)?;
        let stream = to.watch(request).await?;
        Ok(self.mortal(stream, identity, life))
    }
}

impl Wire {
    async fn ask(&self, request: Request) -> Result<Reply, Status> {
        let fault = self.identity.as_ref().and_then(|identity| self.faults.of_request(identity, &request));
        if self.identity.is_some() {
            self.travel().await;
        }
        let Some(fault) = fault else { return self.forward(request).await };
        if matches!(fault, Fault::LoseAnswer) {
            self.faults.count("answers lost");
            self.forward(request).await?;
            return Err(reset());
        }
        if matches!(fault, Fault::Stale) {
            return self.forward_stale(request).await;
        }
        self.suffer(fault, &request).await?;
        self.forward(request).await
    }

    async fn travel(&self) {
        let way = self.faults.way();
        if !way.is_zero() {
            tokio::time::sleep(way).await;
        }
    }

    async fn forward(&self, request: Request) -> Result<Reply, Status> {
        let (to, life) = self.servers.reach(&self.user)?;
        tokio::select! {
            biased;
            reply = to.send(request) => reply,
            () = life.cancelled() => Err(reset()),
        }
    }

    /// What comes before the server reads the request; an error when it never does.
    async fn suffer(&self, fault: Fault, request: &Request) -> Result<(), Status> {
        match fault {
            Fault::Refuse(status) => {
                self.faults.count("refused");
                return Err(status);
            }
            Fault::Reset => {
                self.faults.count("connections reset");
                return Err(reset());
            }
            Fault::Hang => {
                self.faults.count("timeouts");
                tokio::time::sleep(HANG).await;
                return Err(timeout());
            }
            Fault::Delay(pause) => {
                self.faults.count("delayed");
                tokio::time::sleep(pause).await;
            }
            Fault::Conflict => self.write_between(request).await,
            Fault::LoseAnswer | Fault::Stale => {}
        }
        Ok(())
    }

    /// Somebody else changes the object that the request is about.
    async fn write_between(&self, request: &Request) {
        let writable = matches!(request.verb, Verb::Update | Verb::Patch(_) | Verb::Delete);
        if !writable || request.name.is_empty() {
            return;
        }
        let stamp = self.faults.0.rng.next_u64().to_string();
        let patch = json!({"metadata": {"annotations": {"testing.krate.io/touched": stamp}}});
        let touch = Request {
            verb: Verb::Patch(PatchKind::Merge),
            subresource: String::new(),
            options: Options::default(),
            body: Some(Body::Bytes(patch.to_string().into())),
            ..about(request)
        };
        let Ok((admin, _)) = self.servers.reach(&UserInfo::new("somebody", &["system:masters"])) else {
            return;
        };
        // An object that is gone cannot be written to: then there is no conflict.
        if admin.send(touch).await.is_ok() {
            self.faults.count("conflicting writes");
        }
    }

    /// A list as it was a while ago, if the client takes any.
    async fn forward_stale(&self, mut request: Request) -> Result<Reply, Status> {
        if request.verb != Verb::List || request.options.resource_version != "0" {
            return self.forward(request).await;
        }
        let mut old = Request { verb: Verb::List, options: request.options.clone(), ..about(&request) };
        old.options.resource_version = self.faults.past().to_string();
        "Exact".clone_into(&mut old.options.resource_version_match);
        if let Ok(reply) = self.forward(old).await {
            self.faults.count("stale lists");
            return Ok(reply);
        }
        request.body = None;
        self.forward(request).await
    }

    /// A watch that ends when either side is killed, when it is cut, or when its time has come.
    fn mortal(&self, stream: WatchStream, identity: &str, server: Shutdown) -> WatchStream {
        let (killed, cuts) = (self.killed.clone(), self.faults.cuts(identity));
        let life = self.faults.watch_life(identity);
        let faults = self.faults.clone();
        let end = Box::pin(async move {
            tokio::select! {
                biased;
                () = killed.cancelled() => {}
                () = server.cancelled() => {}
                () = cuts.cancelled() => faults.count("watches cut"),
                () = after(life) => faults.count("watches cut"),
            }
        });
        let live = Some((stream, end));
        Box::pin(futures::stream::unfold(live, |live| async move {
            let (mut stream, mut end) = live?;
            tokio::select! {
                biased;
                () = &mut end => Some((Err(reset()), None)),
                item = stream.next() => item.map(|item| (item, Some((stream, end)))),
            }
        }))
    }
}

async fn after(life: Option<Duration>) {
    match life {
        Some(life) => tokio::time::sleep(life).await,
        None => std::future::pending().await,
    }
}

/// A request without content about the same object.
fn about(request: &Request) -> Request {
    Request {
        verb: Verb::Get,
        group: request.group.clone(),
        version: request.version.clone(),
        plural: request.plural.clone(),
        namespace: request.namespace.clone(),
        name: request.name.clone(),
        subresource: request.subresource.clone(),
        options: Options::default(),
        body: None,
    }
}
