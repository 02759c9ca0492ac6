//! What the error channel says at the end of a command: `metav1.Status` from protocol version 4 on, plain text
//! before.

use crate::cri;
use serde_json::json;

/// How a command ended.
pub enum End {
    Exited(i32),
    Failed(cri::Error),
}

/// The bytes for the error channel; `structured` from protocol version 4 on. Older clients learn of success
/// by silence.
pub fn encode(end: &End, structured: bool) -> Option<Vec<u8>> {
    let status = match end {
        End::Exited(0) if !structured => return None,
        End::Exited(0) => json!({"metadata": {}, "status": "Success"}),
        End::Exited(code) => {
            let message = format!("command terminated with non-zero exit code: exit status {code}");
            if !structured {
                return Some(message.into_bytes());
            }
            json!({"metadata": {}, "status": "Failure", "message": message, "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}})
        }
        End::Failed(error) => {
            let message = format!("Internal error occurred: error executing command in container: {error}");
            if !structured {
                return Some(message.into_bytes());
            }
            json!({"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError",
                "details": {"causes": [{"message": error.to_string()}]}, "code": 500})
        }
    };
    Some(status.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_an_internal_error() {
        let end = End::Failed(cri::Error::NotFound("no such file".into()));
        let text = String::from_utf8(encode(&end, true).unwrap()).unwrap();
        let want = "\"message\":\"Internal error occurred: error executing command in container: ";
        assert!(text.contains(want) && text.contains("\"reason\":\"InternalError\""), "{text}");
    }

    #[test]
    fn an_exit_code_is_a_cause() {
        let text = String::from_utf8(encode(&End::Exited(7), true).unwrap()).unwrap();
        assert!(
            text.contains("\"reason\":\"NonZeroExitCode\"") && text.contains("\"message\":\"7\""),
            "{text}"
        );
        assert!(encode(&End::Exited(0), false).is_none());
    }
}
