//! The hash by which a changed container is recognised: of its name and image, the two fields whose change
//! restarts it. Other fields cannot change, or change in place.

use krate_api::types::core::v1::Container;

/// 32-bit FNV-1a.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// The hash in the hexadecimal form that container annotations carry.
pub fn container_hash(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    // The canonical JSON of the two fields, keys sorted.
    let text = serde_json::json!({ "image": image, "name": container.name }).to_string();
    format!("{:x}", fnv1a(text.as_bytes()))
}

/// A stable identity for content that has none, such as a static pod's file (32 hexadecimal digits).
pub fn content_hash(parts: &[&[u8]]) -> String {
    let half = |seed: u64| {
        parts
            .iter()
            .flat_map(|part| part.iter().chain(&[0u8]))
            .fold(seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
    };
    format!("{:016x}{:016x}", half(0xcbf2_9ce4_8422_2325), half(0x6c62_272e_07bb_0142))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::build::container;

    #[test]
    fn only_name_and_image_count() {
        let a = container("web");
        let mut b = container("web");
        b.args = Some(vec!["--debug".into()]);
        assert_eq!(container_hash(&a), container_hash(&b));
        b.image = Some("nginx:2".into());
        assert_ne!(container_hash(&a), container_hash(&b));
    }
}
