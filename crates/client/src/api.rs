//! Typed and untyped clients of one resource over a [`Transport`].
//!
//! [`Api`] speaks in kinds and hands out shared, immutable values; [`DynamicApi`] speaks about any resource
//! by its names, for those who work on objects of every kind. Neither retries anything but
//! [`Api::modify`], whose purpose it is.

use crate::request::{Body, Options, PatchKind, Reply, Request, Transport, Verb, WatchStream};
use bytes::Bytes;
use krate_api::meta::{DeleteOptions, Preconditions};
use krate_api::{Kind, Reason, Resource, Shared, Status, types};
use std::marker::PhantomData;
use std::sync::Arc;

/// How often [`Api::modify`] reads again after a conflict before it gives up.
pub const MODIFY_ATTEMPTS: usize = 5;

/// One page of a collection (all of it unless a limit was asked for).
#[derive(Debug)]
pub struct List<T> {
    pub items: Vec<T>,
    /// The list's resourceVersion.
    pub revision: u64,
    /// Empty on the last page.
    pub continue_token: String,
}

/// A client of kind `K`. Cheap to clone. Namespace is given per call; empty for cluster-scoped kinds, and
/// for lists over all namespaces.
pub struct Api<K: Kind> {
    transport: Arc<dyn Transport>,
    manager: Arc<str>,
    kind: PhantomData<fn() -> K>,
}

impl<K: Kind> Clone for Api<K> {
    fn clone(&self) -> Self {
        Self { transport: self.transport.clone(), manager: self.manager.clone(), kind: PhantomData }
    }
}

impl<K: Kind> Api<K> {
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport, manager: "".into(), kind: PhantomData }
    }

    /// The field manager that writes are made as.
    #[must_use]
    pub fn managed_by(mut self, manager: &str) -> Self {
        self.manager = manager.into();
        self
    }

    #[must_use]
    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    pub async fn get(&self, namespace: &str, name: &str) -> Result<Arc<K>, Status> {
        self.one(Request::of::<K>(Verb::Get, namespace, name)).await
    }

    /// `None` when there is no such object.
    pub async fn get_opt(&self, namespace: &str, name: &str) -> Result<Option<Arc<K>>, Status> {
        match self.get(namespace, name).await {
            Ok(object) => Ok(Some(object)),
            Err(status) if status.is_not_found() => Ok(None),
            Err(status) => Err(status),
        }
    }

    pub async fn list(&self, namespace: &str, options: Options) -> Result<List<Arc<K>>, Status> {
        let mut request = Request::of::<K>(Verb::List, namespace, "");
        request.options = options;
        let list = listed(self.transport.send(request).await?)?;
        let items = list.items.iter().map(typed).collect::<Result<_, _>>()?;
        Ok(List { items, revision: list.revision, continue_token: list.continue_token })
    }

    /// Watches; `options.resource_version` says from where.
    pub async fn watch(&self, namespace: &str, options: Options) -> Result<WatchStream, Status> {
        let mut request = Request::of::<K>(Verb::List, namespace, "");
        request.options = options;
        self.transport.watch(request).await
    }

    /// Creates the object in its `metadata.namespace`.
    pub async fn create(&self, object: K) -> Result<Arc<K>, Status> {
        self.one(Self::birth(object)).await
    }

    /// As [`Api::create`], for those who do not read what was made: nothing is decoded.
    pub async fn create_unread(&self, object: K) -> Result<Shared, Status> {
        self::object(self.send(Self::birth(object)).await?)
    }

    /// Replaces the object; its resourceVersion, if set, must be the present one.
    pub async fn update(&self, object: K) -> Result<Arc<K>, Status> {
        self.one(self.put(object, "")).await
    }

    pub async fn update_status(&self, object: K) -> Result<Arc<K>, Status> {
        self.one(self.put(object, "status")).await
    }

    /// Replaces the object at a subresource (`finalize`, `approval`).
    pub async fn update_at(&self, object: K, subresource: &str) -> Result<Arc<K>, Status> {
        self.one(self.put(object, subresource)).await
    }

    pub async fn patch(
        &self,
        namespace: &str,
        name: &str,
        kind: PatchKind,
        patch: impl Into<Bytes>,
    ) -> Result<Arc<K>, Status> {
        self.patch_at(namespace, name, "", kind, patch).await
    }

    pub async fn patch_status(
        &self,
        namespace: &str,
        name: &str,
        kind: PatchKind,
        patch: impl Into<Bytes>,
    ) -> Result<Arc<K>, Status> {
        self.patch_at(namespace, name, "status", kind, patch).await
    }

    /// Patches a subresource (the main resource when empty).
    pub async fn patch_at(
        &self,
        namespace: &str,
        name: &str,
        subresource: &str,
        kind: PatchKind,
        patch: impl Into<Bytes>,
    ) -> Result<Arc<K>, Status> {
        let mut request = Request::of::<K>(Verb::Patch(kind), namespace, name);
        request.subresource = subresource.to_owned();
        request.body = Some(Body::Bytes(patch.into()));
        self.one(request).await
    }

    /// Reads, changes and replaces until no other writer came between. `change` says whether there is
    /// anything to write.
    pub async fn modify(
        &self,
        namespace: &str,
        name: &str,
        change: impl FnMut(&mut K) -> bool + Send,
    ) -> Result<Arc<K>, Status> {
        self.modify_at(namespace, name, "", change).await
    }

    /// As [`Api::modify`], of the status.
    pub async fn modify_status(
        &self,
        namespace: &str,
        name: &str,
        change: impl FnMut(&mut K) -> bool + Send,
    ) -> Result<Arc<K>, Status> {
        self.modify_at(namespace, name, "status", change).await
    }

    async fn modify_at(
        &self,
        namespace: &str,
        name: &str,
        subresource: &str,
        mut change: impl FnMut(&mut K) -> bool + Send,
    ) -> Result<Arc<K>, Status> {
        let mut attempt = 1;
        loop {
            let present = self.get(namespace, name).await?;
            let mut wanted = (*present).clone();
            if !change(&mut wanted) {
                return Ok(present);
            }
            match self.update_at(wanted, subresource).await {
                Err(status) if status.is_conflict() && attempt < MODIFY_ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    pub async fn delete(&self, namespace: &str, name: &str, options: DeleteOptions) -> Result<(), Status> {
        let mut request = Request::of::<K>(Verb::Delete, namespace, name);
        request.options.delete = Some(options);
        self.send(request).await.map(drop)
    }

    pub async fn delete_collection(
        &self,
        namespace: &str,
        options: Options,
        delete: DeleteOptions,
    ) -> Result<(), Status> {
        let mut request = Request::of::<K>(Verb::DeleteCollection, namespace, "");
        request.options = Options { delete: Some(delete), ..options };
        self.send(request).await.map(drop)
    }

    /// Creates `body` at a subresource; the answer is whatever the subresource answers.
    pub async fn create_at<B: Kind>(
        &self,
        namespace: &str,
        name: &str,
        subresource: &str,
        body: B,
    ) -> Result<Reply, Status> {
        let mut request = Request::of::<K>(Verb::Create, namespace, name);
        request.subresource = subresource.to_owned();
        request.body = Some(Body::Object(Box::new(body)));
        self.send(request).await
    }

    pub async fn scale(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<types::autoscaling::v1::Scale>, Status> {
        let mut request = Request::of::<K>(Verb::Get, namespace, name);
        request.subresource = "scale".to_owned();
        typed_reply(&self.transport.send(request).await?)
    }

    pub async fn update_scale(
        &self,
        namespace: &str,
        name: &str,
        scale: types::autoscaling::v1::Scale,
    ) -> Result<Arc<types::autoscaling::v1::Scale>, Status> {
        let mut request = Request::of::<K>(Verb::Update, namespace, name);
        request.subresource = "scale".to_owned();
        request.body = Some(Body::Object(Box::new(scale)));
        typed_reply(&self.send(request).await?)
    }

    fn put(&self, object: K, subresource: &str) -> Request {
        let meta = object.meta();
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let mut request = Request::of::<K>(Verb::Update, namespace, meta.name.as_deref().unwrap_or_default());
        request.subresource = subresource.to_owned();
        request.body = Some(Body::Object(Box::new(object)));
        request
    }

    fn birth(object: K) -> Request {
        let namespace = object.meta().namespace.clone().unwrap_or_default();
        let mut request = Request::of::<K>(Verb::Create, &namespace, "");
        request.body = Some(Body::Object(Box::new(object)));
        request
    }

    async fn one(&self, request: Request) -> Result<Arc<K>, Status> {
        typed_reply(&self.send(request).await?)
    }

    async fn send(&self, mut request: Request) -> Result<Reply, Status> {
        request.options.field_manager = self.manager.to_string();
        self.transport.send(request).await
    }
}

impl Api<types::core::v1::Pod> {
    /// Binds a pod to a node.
    pub async fn bind(&self, namespace: &str, pod: &str, uid: &str, node: &str) -> Result<(), Status> {
        let mut binding = types::core::v1::Binding::default();
        binding.metadata.name = Some(pod.to_owned());
        binding.metadata.namespace = Some(namespace.to_owned());
        binding.metadata.uid = Some(uid.to_owned());
        binding.target.kind = Some("Node".to_owned());
        binding.target.name = Some(node.to_owned());
        self.create_at(namespace, pod, "binding", binding).await.map(drop)
    }

    /// Asks for a pod's eviction; 429 when a disruption budget forbids it now.
    pub async fn evict(
        &self,
        namespace: &str,
        pod: &str,
        options: Option<DeleteOptions>,
    ) -> Result<(), Status> {
        let mut eviction = types::policy::v1::Eviction { delete_options: options, ..Default::default() };
        eviction.metadata.name = Some(pod.to_owned());
        eviction.metadata.namespace = Some(namespace.to_owned());
        self.create_at(namespace, pod, "eviction", eviction).await.map(drop)
    }
}

impl Api<types::core::v1::ServiceAccount> {
    /// A token of a service account.
    pub async fn request_token(
        &self,
        namespace: &str,
        name: &str,
        request: types::authentication::v1::TokenRequest,
    ) -> Result<Arc<types::authentication::v1::TokenRequest>, Status> {
        typed_reply(&self.create_at(namespace, name, "token", request).await?)
    }
}

/// A client of a resource that is known only by its names.
#[derive(Clone)]
pub struct DynamicApi {
    transport: Arc<dyn Transport>,
    pub group: String,
    pub version: String,
    pub plural: String,
}

impl DynamicApi {
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>, group: &str, version: &str, plural: &str) -> Self {
        Self { transport, group: group.to_owned(), version: version.to_owned(), plural: plural.to_owned() }
    }

    #[must_use]
    pub fn of(transport: Arc<dyn Transport>, resource: &Resource) -> Self {
        Self::new(transport, &resource.group, &resource.version, &resource.plural)
    }

    pub async fn get(&self, namespace: &str, name: &str) -> Result<Shared, Status> {
        object(self.transport.send(self.request(Verb::Get, namespace, name)).await?)
    }

    /// A subresource of an object: `scale`.
    pub async fn get_at(&self, namespace: &str, name: &str, subresource: &str) -> Result<Shared, Status> {
        let subresource = subresource.to_owned();
        object(
            self.transport.send(Request { subresource, ..self.request(Verb::Get, namespace, name) }).await?,
        )
    }

    pub async fn get_opt(&self, namespace: &str, name: &str) -> Result<Option<Shared>, Status> {
        match self.get(namespace, name).await {
            Ok(object) => Ok(Some(object)),
            Err(status) if status.is_not_found() => Ok(None),
            Err(status) => Err(status),
        }
    }

    pub async fn list(&self, namespace: &str, options: Options) -> Result<List<Shared>, Status> {
        let request = Request { options, ..self.request(Verb::List, namespace, "") };
        listed(self.transport.send(request).await?)
    }

    pub async fn create(&self, namespace: &str, value: &serde_json::Value) -> Result<Shared, Status> {
        let body = Some(Body::Bytes(value.to_string().into()));
        let request = Request { body, ..self.request(Verb::Create, namespace, "") };
        object(self.transport.send(request).await?)
    }

    pub async fn update(
        &self,
        namespace: &str,
        name: &str,
        value: &serde_json::Value,
    ) -> Result<Shared, Status> {
        let body = Some(Body::Bytes(value.to_string().into()));
        let request = Request { body, ..self.request(Verb::Update, namespace, name) };
        object(self.transport.send(request).await?)
    }

    pub async fn patch(
        &self,
        namespace: &str,
        name: &str,
        subresource: &str,
        kind: PatchKind,
        patch: impl Into<Bytes>,
    ) -> Result<Shared, Status> {
        let mut request = self.request(Verb::Patch(kind), namespace, name);
        request.subresource = subresource.to_owned();
        request.body = Some(Body::Bytes(patch.into()));
        object(self.transport.send(request).await?)
    }

    pub async fn delete(&self, namespace: &str, name: &str, options: DeleteOptions) -> Result<(), Status> {
        let mut request = self.request(Verb::Delete, namespace, name);
        request.options.delete = Some(options);
        self.transport.send(request).await.map(drop)
    }

    pub async fn delete_collection(&self, namespace: &str, delete: DeleteOptions) -> Result<(), Status> {
        let mut request = self.request(Verb::DeleteCollection, namespace, "");
        request.options.delete = Some(delete);
        self.transport.send(request).await.map(drop)
    }

    fn request(&self, verb: Verb, namespace: &str, name: &str) -> Request {
        Request {
            verb,
            group: self.group.clone(),
            version: self.version.clone(),
            plural: self.plural.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: String::new(),
            options: Options::default(),
            body: None,
        }
    }
}

/// Options of a delete that happens only if the object still has this uid.
#[must_use]
pub fn delete_uid(uid: &str) -> DeleteOptions {
    DeleteOptions {
        preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
        ..DeleteOptions::default()
    }
}

fn object(reply: Reply) -> Result<Shared, Status> {
    match reply {
        Reply::Object(object) => Ok(object),
        Reply::Bytes(bytes) => Shared::parse(bytes).map_err(undecodable),
        Reply::List { .. } => {
            Err(Status::internal("the server answered a list where one object was asked for"))
        }
    }
}

fn listed(reply: Reply) -> Result<List<Shared>, Status> {
    match reply {
        Reply::List { items, revision, continue_token } => Ok(List { items, revision, continue_token }),
        _ => Err(Status::internal("the server answered something else than the list that was asked for")),
    }
}

fn typed<K: Kind>(object: &Shared) -> Result<Arc<K>, Status> {
    object.typed().map_err(undecodable)
}

fn typed_reply<K: Kind>(reply: &Reply) -> Result<Arc<K>, Status> {
    match reply {
        Reply::Object(object) => typed(object),
        Reply::Bytes(bytes) => K::decode(bytes).map(Arc::new).map_err(undecodable),
        Reply::List { .. } => {
            Err(Status::internal("the server answered a list where one object was asked for"))
        }
    }
}

fn undecodable(error: krate_api::object::DecodeError) -> Status {
    Status::failure(Reason::InternalError, format!("the server's answer cannot be decoded: {error}"))
}
