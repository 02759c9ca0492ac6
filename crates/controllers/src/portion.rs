//! Numbers of pods that may be told as a share of a total. Pure.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// A number, or a percentage of a total.
#[must_use]
pub fn of_total(value: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(number)) => (*number).max(0),
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.strip_suffix('%').and_then(|p| p.parse().ok()).unwrap_or(0);
            let product = percent * i64::from(total);
            let pods = if up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(pods).unwrap_or(i32::MAX).max(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_round_as_they_are_asked_to() {
        let half = IntOrString::String("50%".to_owned());
        assert_eq!((of_total(Some(&half), 3, true), of_total(Some(&half), 3, false)), (2, 1));
        assert_eq!((of_total(Some(&IntOrString::Int(-1)), 3, true), of_total(None, 3, true)), (0, 0));
    }
}
