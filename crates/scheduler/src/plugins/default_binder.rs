//! Binds pods through the API's binding subresource.

use crate::framework::Plugin;
use crate::view::PodView;
use async_trait::async_trait;
use krate_api::Status;
use krate_api::types::core::v1::Pod;
use krate_client::{Api, Transport};
use std::sync::Arc;

pub struct DefaultBinder {
    api: Api<Pod>,
}

impl DefaultBinder {
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { api: Api::new(transport) }
    }
}

#[async_trait]
impl Plugin for DefaultBinder {
    fn name(&self) -> &'static str {
        "DefaultBinder"
    }

    async fn bind(&self, pod: &PodView, node: &str) -> Option<Result<(), Status>> {
        Some(self.api.bind(&pod.namespace, &pod.name, &pod.uid, node).await)
    }
}
