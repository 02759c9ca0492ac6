//! What happens in the cluster, as far as it may help a pod that fits nowhere.

use crate::view::{NodeView, PodView};
use std::ops::BitOr;
use std::sync::Arc;

/// A set of kinds of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events(u32);

impl Events {
    pub const NODE_ADD: Self = Self(1);
    pub const NODE_ALLOCATABLE: Self = Self(1 << 1);
    pub const NODE_LABEL: Self = Self(1 << 2);
    /// Taints, and `spec.unschedulable`.
    pub const NODE_TAINT: Self = Self(1 << 3);
    pub const NODE_DELETE: Self = Self(1 << 4);
    /// A pod was bound.
    pub const POD_ASSIGNED: Self = Self(1 << 5);
    /// A bound pod is gone or has ended.
    pub const POD_DELETE: Self = Self(1 << 6);
    /// A bound pod asks for less.
    pub const POD_SCALE_DOWN: Self = Self(1 << 7);
    pub const POD_LABEL: Self = Self(1 << 8);
    /// The waiting pod itself changed.
    pub const ITSELF: Self = Self(1 << 9);
    pub const NAMESPACE: Self = Self(1 << 10);
    pub const CLAIM: Self = Self(1 << 11);
    pub const VOLUME: Self = Self(1 << 12);
    pub const STORAGE_CLASS: Self = Self(1 << 13);
    pub const CSI_NODE: Self = Self(1 << 14);
    pub const CSI_DRIVER: Self = Self(1 << 15);
    pub const CSI_CAPACITY: Self = Self(1 << 16);

    #[must_use]
    pub const fn empty() -> Self {
        Self(0)
    }

    #[must_use]
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for Events {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The kinds of objects that volumes are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StorageKind {
    Claim,
    Volume,
    Class,
    CsiNode,
    CsiDriver,
    CsiCapacity,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    NodeAdded(Arc<NodeView>),
    NodeChanged {
        old: Arc<NodeView>,
        new: Arc<NodeView>,
    },
    NodeDeleted,
    PodAssigned(Arc<PodView>),
    PodChanged {
        old: Arc<PodView>,
        new: Arc<PodView>,
    },
    PodDeleted(Arc<PodView>),
    ItselfChanged {
        old: Arc<PodView>,
        new: Arc<PodView>,
    },
    NamespaceChanged,
    /// A claim, a volume or a class came, changed or went.
    Storage {
        kind: StorageKind,
        key: String,
    },
    /// Something may have changed that nobody told us about.
    Unknown,
}

/// Whether to try a pod again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    Queue,
    Skip,
}

impl From<bool> for Hint {
    fn from(helps: bool) -> Self {
        if helps { Self::Queue } else { Self::Skip }
    }
}

impl Event {
    /// The kinds that it is of.
    #[must_use]
    pub fn kinds(&self) -> Events {
        let when = |changed: bool, kind: Events| if changed { kind } else { Events::empty() };
        match self {
            Self::NodeAdded(_) => Events::NODE_ADD,
            Self::NodeChanged { old, new } => {
                when(old.allocatable != new.allocatable, Events::NODE_ALLOCATABLE)
                    | when(old.labels != new.labels, Events::NODE_LABEL)
                    | when(
                        old.taints != new.taints || old.unschedulable != new.unschedulable,
                        Events::NODE_TAINT,
                    )
            }
            Self::NodeDeleted => Events::NODE_DELETE,
            Self::PodAssigned(_) => Events::POD_ASSIGNED,
            Self::PodChanged { old, new } => {
                when(old.labels != new.labels, Events::POD_LABEL)
                    | when(asks_for_less(old, new), Events::POD_SCALE_DOWN)
            }
            Self::PodDeleted(_) => Events::POD_DELETE,
            Self::ItselfChanged { .. } => Events::ITSELF,
            Self::NamespaceChanged => Events::NAMESPACE,
            Self::Storage { kind, .. } => match kind {
                StorageKind::Claim => Events::CLAIM,
                StorageKind::Volume => Events::VOLUME,
                StorageKind::Class => Events::STORAGE_CLASS,
                StorageKind::CsiNode => Events::CSI_NODE,
                StorageKind::CsiDriver => Events::CSI_DRIVER,
                StorageKind::CsiCapacity => Events::CSI_CAPACITY,
            },
            Self::Unknown => Events(u32::MAX),
        }
    }

    /// The name in metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::NodeAdded(_) => "NodeAdd",
            Self::NodeChanged { .. } => "NodeUpdate",
            Self::NodeDeleted => "NodeDelete",
            Self::PodAssigned(_) => "AssignedPodAdd",
            Self::PodChanged { .. } => "AssignedPodUpdate",
            Self::PodDeleted(_) => "AssignedPodDelete",
            Self::ItselfChanged { .. } => "UnscheduledPodUpdate",
            Self::NamespaceChanged => "NamespaceUpdate",
            Self::Storage { kind: StorageKind::Claim, .. } => "PersistentVolumeClaimUpdate",
            Self::Storage { kind: StorageKind::Volume, .. } => "PersistentVolumeUpdate",
            Self::Storage { kind: StorageKind::Class, .. } => "StorageClassUpdate",
            Self::Storage { kind: StorageKind::CsiNode, .. } => "CSINodeUpdate",
            Self::Storage { kind: StorageKind::CsiDriver, .. } => "CSIDriverUpdate",
            Self::Storage { kind: StorageKind::CsiCapacity, .. } => "CSIStorageCapacityUpdate",
            Self::Unknown => "ForceActivate",
        }
    }
}

fn asks_for_less(old: &PodView, new: &PodView) -> bool {
    let (old, new) = (&old.requests, &new.requests);
    new.cpu < old.cpu
        || new.memory < old.memory
        || new.storage < old.storage
        || old.scalars.iter().any(|(name, amount)| new.scalar(name) < *amount)
}
