//! What a list or watch is narrowed to: namespace, name, labels, fields.

use crate::call::Call;
use krate_api::{Status, View, fields, labels};

/// The part of a collection that a request asks for.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    prefix: String,
    labels: labels::Selector,
    fields: fields::Selector,
}

impl Selection {
    /// From a call's namespace and selectors; 400 for what cannot be read or may not select.
    pub fn of(call: &Call) -> Result<Self, Status> {
        let options = &call.options;
        let bad = |e: labels::SelectorError| Status::bad_request(e.to_string());
        let labels = labels::Selector::parse(&options.label_selector).map_err(bad)?;
        let fields = fields::Selector::parse(&options.field_selector)
            .and_then(|fields| fields.for_resource(call.resource()))
            .map_err(bad)?;
        let mut prefix =
            if call.namespace.is_empty() { String::new() } else { format!("{}/", call.namespace) };
        let everywhere = call.resource().namespaced && call.namespace.is_empty();
        if let (false, Some(name)) = (everywhere, fields.requires("metadata.name")) {
            prefix.push_str(name);
        }
        Ok(Self { prefix, labels, fields })
    }

    /// Of a collection's paths, those that begin so are worth looking at.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether selectors may leave some of those out.
    pub fn is_thinning(&self) -> bool {
        !(self.labels.is_everything() && self.fields.is_everything())
    }

    pub fn matches(&self, view: &View) -> bool {
        self.labels.matches(&view.labels) && self.fields.matches(view)
    }
}
