//! The CRI's ImageService over the image store.

use super::{EmbeddedRuntime, blocking};
use crate::cri::{AuthConfig, FilesystemUsage, Image, ImageFsInfo, ImageSpec, Images, Result};
use crate::images::pull;
use async_trait::async_trait;

#[async_trait]
impl Images for EmbeddedRuntime {
    async fn list_images(&self, filter: Option<&str>) -> Result<Vec<Image>> {
        let (images, filter) = (self.images.clone(), filter.map(str::to_owned));
        blocking(move || {
            let found = match &filter {
                Some(name) => images.find(name)?.into_iter().collect(),
                None => images.list()?,
            };
            Ok(found.iter().map(crate::images::ImageRecord::to_cri).collect())
        })
        .await
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>> {
        let (images, image) = (self.images.clone(), image.to_owned());
        blocking(move || Ok(images.find(&image)?.map(|found| found.to_cri()))).await
    }

    async fn pull_image(&self, image: &ImageSpec, auth: Option<&AuthConfig>) -> Result<String> {
        let id = pull(&self.images, &image.image, auth, &self.config.pull).await?;
        Ok(id.to_string())
    }

    async fn remove_image(&self, image: &str) -> Result<()> {
        let (images, image) = (self.images.clone(), image.to_owned());
        blocking(move || images.remove(&image)).await
    }

    fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.image_changes.clone()
    }

    async fn image_fs_info(&self) -> Result<ImageFsInfo> {
        let (images, timestamp, root) = (self.images.clone(), self.now(), self.config.root.clone());
        blocking(move || {
            let (image_bytes, image_files) = images.usage();
            let (bytes, files) = crate::usage::tree(&root);
            let usage = |path: &std::path::Path, used_bytes, inodes_used| FilesystemUsage {
                timestamp,
                mountpoint: path.display().to_string(),
                used_bytes,
                inodes_used,
            };
            Ok(ImageFsInfo {
                image_filesystems: vec![usage(images.root(), image_bytes, image_files)],
                container_filesystems: vec![usage(&root, bytes, files)],
            })
        })
        .await
    }
}
