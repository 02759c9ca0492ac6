//! A profile: the plugins that schedule the pods of one `schedulerName`, with their weights.

use crate::framework::Plugin;
use crate::plugins::{self, Settings};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The scheduler that pods get which ask for none.
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";

/// How a profile is configured. The default is the original's.
#[derive(Clone, Debug, Default)]
pub struct ProfileConfig {
    /// Empty for [`DEFAULT_SCHEDULER`].
    pub scheduler_name: String,
    /// Share of the nodes to search, 1 to 100; `None` adapts to the size of the cluster.
    pub percentage_of_nodes_to_score: Option<usize>,
    /// Plugins to leave out; `*` for all defaults.
    pub disabled: Vec<String>,
    /// Plugins with another weight than their default, or to have after `*` was disabled. 0 is the default
    /// weight.
    pub enabled: BTreeMap<String, i64>,
    pub settings: Settings,
}

/// A profile, ready to use.
pub struct Profile {
    pub name: String,
    pub percentage: Option<usize>,
    /// In the order in which they are asked. The weight of those that do not score is 0.
    pub plugins: Vec<(Arc<dyn Plugin>, i64)>,
}

/// The configuration asks for what there is not.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    #[error("profile {profile:?}: there is no plugin {plugin:?}")]
    NoSuchPlugin { profile: String, plugin: String },
    #[error("two profiles are for scheduler name {0:?}")]
    Twice(String),
    #[error("profile {profile:?}: the weight of plugin {plugin:?} is negative")]
    NegativeWeight { profile: String, plugin: String },
    #[error("profile {profile:?}: percentageOfNodesToScore is {percentage}, not 0 to 100")]
    Percentage { profile: String, percentage: usize },
}

impl Profile {
    pub fn new(config: &ProfileConfig) -> Result<Self, ConfigError> {
        let name = match config.scheduler_name.as_str() {
            "" => DEFAULT_SCHEDULER.to_owned(),
            name => name.to_owned(),
        };
        if let Some(percentage) = config.percentage_of_nodes_to_score.filter(|p| *p > 100) {
            return Err(ConfigError::Percentage { profile: name, percentage });
        }
        let known = plugins::all(&config.settings);
        let asked = config.disabled.iter().filter(|plugin| *plugin != "*").chain(config.enabled.keys());
        for plugin in asked {
            if !known.iter().any(|(known, _)| known.name() == plugin) {
                return Err(ConfigError::NoSuchPlugin { profile: name, plugin: plugin.clone() });
            }
        }
        if let Some((plugin, _)) = config.enabled.iter().find(|(_, weight)| **weight < 0) {
            return Err(ConfigError::NegativeWeight { profile: name, plugin: plugin.clone() });
        }
        let disabled = |plugin: &str| config.disabled.iter().any(|d| d == "*" || d == plugin);
        let plugins =
            known.into_iter().filter_map(|(plugin, weight)| match config.enabled.get(plugin.name()) {
                Some(0) => Some((plugin, weight)),
                Some(asked) => Some((plugin, *asked)),
                None => (!disabled(plugin.name())).then_some((plugin, weight)),
            });
        let plugins = plugins.collect();
        Ok(Self { name, percentage: config.percentage_of_nodes_to_score, plugins })
    }

    /// The profiles of several configurations; the default one if there is none.
    pub fn all(configs: &[ProfileConfig]) -> Result<BTreeMap<String, Arc<Self>>, ConfigError> {
        let default = [ProfileConfig::default()];
        let configs = if configs.is_empty() { &default } else { configs };
        let mut profiles = BTreeMap::new();
        for config in configs {
            let profile = Arc::new(Self::new(config)?);
            if let Some(twice) = profiles.insert(profile.name.clone(), profile) {
                return Err(ConfigError::Twice(twice.name.clone()));
            }
        }
        Ok(profiles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(config: &ProfileConfig) -> BTreeMap<&'static str, i64> {
        let profile = Profile::new(config).unwrap();
        profile.plugins.iter().map(|(plugin, weight)| (plugin.name(), *weight)).collect()
    }

    #[test]
    fn the_default_weights_are_the_originals() {
        let weights = weights(&ProfileConfig::default());
        for (plugin, weight) in [
            ("TaintToleration", 3),
            ("NodeAffinity", 2),
            ("NodeResourcesFit", 1),
            ("NodeResourcesBalancedAllocation", 1),
            ("PodTopologySpread", 2),
            ("InterPodAffinity", 2),
            ("ImageLocality", 1),
        ] {
            assert_eq!(weights[plugin], weight, "{plugin}");
        }
    }

    #[test]
    fn plugins_are_left_out_and_weighed_by_name() {
        let enabled = BTreeMap::from([("NodeResourcesFit".to_owned(), 5), ("NodeName".to_owned(), 0)]);
        let config = ProfileConfig { disabled: vec!["*".into()], enabled, ..ProfileConfig::default() };
        assert_eq!(weights(&config), BTreeMap::from([("NodeName", 0), ("NodeResourcesFit", 5)]));
        let config = ProfileConfig { disabled: vec!["Nothing".into()], ..ProfileConfig::default() };
        assert!(matches!(Profile::new(&config), Err(ConfigError::NoSuchPlugin { .. })));
    }
}
