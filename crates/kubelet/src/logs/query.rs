//! The parameters of a request for logs (`PodLogOptions`).

use krate_base::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    Stdout,
    Stderr,
}

/// From when on lines are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    Seconds(i64),
    Time(Timestamp),
}

/// What is wanted of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    pub since: Option<Since>,
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
    /// Both streams if absent.
    pub stream: Option<StreamKind>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{field}: Invalid value: {value:?}: {detail}")]
pub struct QueryError {
    field: &'static str,
    value: String,
    detail: &'static str,
}

impl LogQuery {
    /// Reads decoded query parameters; unknown ones pass.
    pub fn parse<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self, QueryError> {
        let mut query = Self::default();
        for (name, value) in pairs.filter(|(_, v)| !v.is_empty()) {
            match name {
                "follow" => query.follow = truth(value),
                "previous" => query.previous = truth(value),
                "timestamps" => query.timestamps = truth(value),
                "sinceSeconds" => {
                    query.since =
                        Some(Since::Seconds(
                            whole("sinceSeconds", value, 1, "must be greater than 0")? as i64
                        ));
                }
                "sinceTime" => {
                    let time =
                        value.parse().map_err(|_| wrong("sinceTime", value, "must be an RFC 3339 time"))?;
                    query.since = Some(Since::Time(time));
                }
                "tailLines" => {
                    query.tail_lines =
                        Some(whole("tailLines", value, 0, "must be greater than or equal to 0")?);
                }
                "limitBytes" => {
                    query.limit_bytes = Some(whole("limitBytes", value, 1, "must be greater than 0")?);
                }
                "stream" => {
                    query.stream = match value {
                        "Stdout" => Some(StreamKind::Stdout),
                        "Stderr" => Some(StreamKind::Stderr),
                        "All" => None,
                        _ => return Err(wrong("stream", value, "must be one of All, Stdout, Stderr")),
                    };
                }
                _ => {}
            }
        }
        Ok(query)
    }

    /// The time before which lines are left out.
    #[must_use]
    pub fn cutoff(&self, now: Timestamp) -> Option<Timestamp> {
        match self.since? {
            Since::Time(time) => Some(time),
            Since::Seconds(seconds) => Some(
                Timestamp::from_second(now.as_second().saturating_sub(seconds)).unwrap_or(Timestamp::MIN),
            ),
        }
    }
}

fn truth(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

fn wrong(field: &'static str, value: &str, detail: &'static str) -> QueryError {
    QueryError { field, value: value.to_owned(), detail }
}

fn whole(field: &'static str, value: &str, least: i64, detail: &'static str) -> Result<u64, QueryError> {
    let number: i64 = value.parse().map_err(|_| wrong(field, value, "must be a number"))?;
    if number < least { Err(wrong(field, value, detail)) } else { Ok(number as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_and_bounded() {
        let query =
            LogQuery::parse([("follow", "true"), ("tailLines", "0"), ("x", "y")].into_iter()).unwrap();
        assert!(query.follow && query.tail_lines == Some(0));
        let error = LogQuery::parse([("limitBytes", "0")].into_iter()).unwrap_err();
        assert_eq!(error.to_string(), "limitBytes: Invalid value: \"0\": must be greater than 0");
    }
}
