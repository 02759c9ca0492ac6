//! Words that validation is written in: the faults that many fields share, added to a list.

use super::fill::{Resources, str_of};
use super::internal::{self, Form};
use super::names;
use crate::field::{Error, Errors, Path};
use crate::quantity::Quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityText;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;

pub const IMMUTABLE: &str = "field is immutable";
pub const NEGATIVE: &str = "must be greater than or equal to 0";

/// What a list of faults can be asked to check.
pub trait Check {
    /// One error per fault of a value.
    fn faults(&mut self, path: &Path, value: &str, faults: Vec<String>);
    /// Whether the value is there; an error if not.
    fn required(&mut self, path: &Path, value: &str) -> bool;
    /// The value is one of a few, in the order in which the error names them.
    fn one_of(&mut self, path: &Path, value: &str, supported: &[&str]);
    /// As [`Check::one_of`], with an error of its own for an empty value.
    fn required_one_of(&mut self, path: &Path, value: &str, supported: &[&str]);
    fn not_negative(&mut self, path: &Path, value: Option<i64>);
    fn invalid<T: Serialize + ?Sized>(&mut self, path: &Path, value: &T, detail: &str);
    /// A list, which the original shows as `null` when there is nothing in it.
    fn invalid_list<T: Serialize>(&mut self, path: &Path, list: &[T], detail: &str);
    fn forbidden(&mut self, path: &Path, detail: &str);
    /// The value is what it was.
    fn unchanged<T: Serialize + PartialEq>(&mut self, path: &Path, new: &T, old: &T);
}

impl Check for Errors {
    fn faults(&mut self, path: &Path, value: &str, faults: Vec<String>) {
        self.extend(faults.into_iter().map(|fault| Error::invalid(path, value, fault)));
    }

    fn required(&mut self, path: &Path, value: &str) -> bool {
        if value.is_empty() {
            self.push(Error::required(path, ""));
        }
        !value.is_empty()
    }

    fn one_of(&mut self, path: &Path, value: &str, supported: &[&str]) {
        if !supported.contains(&value) {
            self.push(Error::not_supported(path, value, supported));
        }
    }

    fn required_one_of(&mut self, path: &Path, value: &str, supported: &[&str]) {
        if self.required(path, value) {
            self.one_of(path, value, supported);
        }
    }

    fn not_negative(&mut self, path: &Path, value: Option<i64>) {
        if let Some(value) = value.filter(|v| *v < 0) {
            self.push(Error::invalid(path, &value, NEGATIVE));
        }
    }

    fn invalid<T: Serialize + ?Sized>(&mut self, path: &Path, value: &T, detail: &str) {
        self.push(Error::invalid(path, value, detail));
    }

    fn invalid_list<T: Serialize>(&mut self, path: &Path, list: &[T], detail: &str) {
        self.push(Error::invalid(path, &Some(list).filter(|l| !l.is_empty()), detail));
    }

    fn forbidden(&mut self, path: &Path, detail: &str) {
        self.push(Error::forbidden(path, detail));
    }

    fn unchanged<T: Serialize + PartialEq>(&mut self, path: &Path, new: &T, old: &T) {
        if !super::fill::same(new, old) {
            self.push(Error::invalid(path, new, IMMUTABLE));
        }
    }
}

/// As [`Check::unchanged`], for a structure that is shown in its internal form.
pub fn kept<T: Serialize + PartialEq>(errors: &mut Errors, path: &Path, new: &T, old: &T, form: &Form) {
    if !super::fill::same(new, old) {
        errors.push(Error::invalid(path, "", IMMUTABLE).showing(internal::show(new, form)));
    }
}

/// A number or name of a port.
pub fn port(errors: &mut Errors, path: &Path, port: &IntOrString) {
    match port {
        IntOrString::Int(number) => {
            for fault in names::port_number(i64::from(*number)) {
                errors.invalid(path, number, &fault);
            }
        }
        IntOrString::String(name) => errors.faults(path, name, names::port_name(name)),
    }
}

/// A port number.
pub fn port_number(errors: &mut Errors, path: &Path, number: i32) {
    for fault in names::port_number(i64::from(number)) {
        errors.invalid(path, &number, &fault);
    }
}

/// An address that traffic can be sent to.
pub fn endpoint_ip(errors: &mut Errors, path: &Path, value: &str) {
    use std::net::IpAddr;
    let Some(ip) = names::sloppy_ip(value).map(|ip| ip.to_canonical()) else {
        errors.invalid(path, value, "must be a valid IP address");
        return;
    };
    let (link_local, multicast) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    if ip.is_unspecified() {
        errors.invalid(path, value, &format!("may not be unspecified ({value})"));
    }
    if ip.is_loopback() {
        errors.invalid(path, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        errors.invalid(path, value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if multicast {
        errors.invalid(path, value, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

/// Whether one of the addresses is of IPv4 and the other of IPv6.
#[must_use]
pub fn dual_stack(addresses: &[&str]) -> bool {
    let six = addresses.iter().filter(|a| a.contains(':')).count();
    six > 0 && six < addresses.len()
}

/// An amount, or the error that it is none.
pub fn quantity(errors: &mut Errors, path: &Path, text: &QuantityText) -> Option<Quantity> {
    match Quantity::of(text) {
        Ok(quantity) => Some(quantity),
        Err(error) => {
            errors.invalid(path, &text.0, &error.to_string());
            None
        }
    }
}

/// An amount of a resource: not negative, and whole where the resource is countable.
pub fn amount(errors: &mut Errors, path: &Path, resource: &str, text: &QuantityText) -> Option<Quantity> {
    let amount = quantity(errors, path, text)?;
    if amount.is_negative() {
        errors.invalid(path, &text.0, NEGATIVE);
    }
    if super::resources::is_integer(resource) && amount.millis() % 1000 != 0 {
        errors.invalid(path, &text.0, "must be an integer");
    }
    Some(amount)
}

/// An amount above zero.
pub fn positive(errors: &mut Errors, path: &Path, text: &QuantityText) -> Option<Quantity> {
    let amount = quantity(errors, path, text)?;
    if amount.signum() <= 0 {
        errors.invalid(path, &text.0, "must be greater than zero");
        return None;
    }
    Some(amount)
}

/// The amounts of a list.
pub fn entries(list: Option<&Resources>) -> impl Iterator<Item = (&String, &QuantityText)> {
    list.into_iter().flatten()
}

/// Whether two optional strings are equal, with absence as the empty string.
#[must_use]
pub fn same_text(a: &Option<String>, b: &Option<String>) -> bool {
    str_of(a) == str_of(b)
}
