//! What a Job's status may say, and how it may change: counters do not fall, a Job that has ended stays so, and it
//! ends in steps. What a status said before and says still is not held against it.

use crate::behaviour::check::Check;
use crate::behaviour::fill;
use crate::behaviour::workload::counts;
use crate::field::{Error, ErrorType, Errors, Path};
use crate::types::batch::v1::{Job, JobStatus};

const COMPLETE: &str = "Complete";
const FAILED: &str = "Failed";
const FAILURE_TARGET: &str = "FailureTarget";
const CRITERIA_MET: &str = "SuccessCriteriaMet";

/// A Job's status beside the one that it had.
struct Change<'a> {
    job: &'a Job,
    new: &'a JobStatus,
    old: &'a JobStatus,
    path: Path,
}

pub fn update(job: &Job, was: &Job) -> Errors {
    let default = JobStatus::default();
    let (new, old) = (job.status.as_ref().unwrap_or(&default), was.status.as_ref().unwrap_or(&default));
    let change = Change { job, new, old, path: Path::new("status") };
    let mut errors = Errors::new();
    counters(&mut errors, &change.path, new);
    uncounted(&mut errors, &change.path, new);
    change.end(&mut errors);
    change.conditions(&mut errors);
    change.times(&mut errors);
    change.indexes(&mut errors);
    change.is_kept(&mut errors);
    errors
}

fn holds(status: &JobStatus, kind: &str) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == kind && c.status == "True")
}

fn finished(status: &JobStatus) -> bool {
    holds(status, COMPLETE) || holds(status, FAILED)
}

fn counters(errors: &mut Errors, path: &Path, status: &JobStatus) {
    counts(
        errors,
        path,
        &[
            ("active", status.active.map(i64::from)),
            ("succeeded", status.succeeded.map(i64::from)),
            ("failed", status.failed.map(i64::from)),
            ("ready", status.ready.map(i64::from)),
            ("terminating", status.terminating.map(i64::from)),
        ],
    );
}

fn uncounted(errors: &mut Errors, path: &Path, status: &JobStatus) {
    let Some(pods) = &status.uncounted_terminated_pods else { return };
    let path = path.child("uncountedTerminatedPods");
    let mut seen = std::collections::BTreeSet::new();
    for (field, list) in [("succeeded", &pods.succeeded), ("failed", &pods.failed)] {
        for (i, uid) in fill::items(list).iter().enumerate() {
            let path = path.child(field).index(i);
            if uid.is_empty() {
                errors.invalid(&path, uid, "must not be empty");
            } else if !seen.insert(uid) {
                errors.push(Error::duplicate(&path, uid));
            }
        }
    }
}

/// A fault of a list as a whole, whose value is not told.
fn untold(path: &Path, detail: impl Into<String>) -> Error {
    let mut error = Error::required(path, "");
    error.kind = ErrorType::Invalid;
    error.with_detail(detail)
}

impl Change<'_> {
    fn changed<T: PartialEq>(&self, part: impl Fn(&JobStatus) -> T) -> bool {
        part(self.new) != part(self.old)
    }

    fn turned(&self, kind: &str) -> bool {
        self.changed(|s| holds(s, kind))
    }

    /// What cannot be while a Job has ended.
    fn end(&self, errors: &mut Errors) {
        let new = self.new;
        let (active, ready) = (new.active.unwrap_or(0), new.ready.unwrap_or(0));
        let active_changed = self.changed(|s| s.active);
        if (active_changed || self.changed(|s| s.ready)) && ready > active {
            let text = "cannot set more ready pods than active";
            errors.invalid(&self.path.child("ready"), &ready, text);
        }
        if !finished(new) {
            return;
        }
        let ended = self.changed(finished);
        if (ended || active_changed) && active > 0 {
            let text = "active>0 is invalid for finished job";
            errors.invalid(&self.path.child("active"), &active, text);
        }
        let terminating = new.terminating.unwrap_or(0);
        if (ended || self.changed(|s| s.terminating)) && terminating > 0 {
            let text = "terminating>0 is invalid for finished job";
            errors.invalid(&self.path.child("terminating"), &terminating, text);
        }
        let spec = self.job.spec.as_ref();
        let nothing_to_do = spec.is_some_and(|s| s.suspend == Some(true) && s.completions == Some(0));
        let started = self.changed(|s| s.start_time.clone());
        if (ended || started) && !nothing_to_do && new.start_time.is_none() {
            let text = "startTime is required for finished job";
            errors.push(Error::required(&self.path.child("startTime"), text));
        }
        let waiting = new.uncounted_terminated_pods.as_ref();
        let waits = waiting
            .is_some_and(|p| !fill::items(&p.succeeded).is_empty() || !fill::items(&p.failed).is_empty());
        if (ended || self.changed(|s| s.uncounted_terminated_pods.clone())) && waits {
            let text = "uncountedTerminatedPods needs to be empty for finished job";
            errors.invalid(&self.path.child("uncountedTerminatedPods"), &waiting, text);
        }
    }

    fn conditions(&self, errors: &mut Errors) {
        let path = self.path.child("conditions");
        let (complete, failed) = (holds(self.new, COMPLETE), holds(self.new, FAILED));
        let (failing, enough) = (holds(self.new, FAILURE_TARGET), holds(self.new, CRITERIA_MET));
        let (completes, fails) = (self.turned(COMPLETE), self.turned(FAILED));
        let (targets, meets) = (self.turned(FAILURE_TARGET), self.turned(CRITERIA_MET));
        let indexes = self.changed(|s| s.failed_indexes.clone());
        let rules = [
            (
                (fails || indexes) && failed && !failing,
                "cannot set Failed=True condition without the FailureTarget=true condition",
            ),
            (
                (completes || meets) && complete && !enough,
                "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
            ),
            (
                (completes || fails) && complete && failed,
                "cannot set Complete=True and Failed=true conditions",
            ),
            (
                (completes || targets) && complete && failing,
                "cannot set Complete=True condition and FailureTarget=true condition",
            ),
            (
                (meets || fails) && enough && failed,
                "cannot set Failed=True and SuccessCriteriaMet=true conditions",
            ),
            (
                (meets || targets) && enough && failing,
                "cannot set FailureTarget=True and SuccessCriteriaMet=true conditions",
            ),
        ];
        for (_, text) in rules.into_iter().filter(|(broken, _)| *broken) {
            errors.push(untold(&path, text));
        }
    }

    fn times(&self, errors: &mut Errors) {
        let at = self.path.child("completionTime");
        let end = self.new.completion_time.as_ref();
        let told = self.turned(COMPLETE) || self.changed(|s| s.completion_time.clone());
        if told && end.is_some() && !holds(self.new, COMPLETE) {
            let text = "cannot set completionTime when there is no Complete=True condition";
            errors.invalid(&at, &end, text);
        }
        if told && end.is_none() && holds(self.new, COMPLETE) {
            errors.push(Error::required(&at, "completionTime is required for Complete jobs"));
        }
        let moved = self.changed(|s| (s.start_time.clone(), s.completion_time.clone()));
        if let (Some(start), Some(end)) = (&self.new.start_time, end)
            && moved
            && end.0 < start.0
        {
            errors.invalid(&at, &Some(end), "completionTime cannot be set before startTime");
        }
    }

    fn indexes(&self, errors: &mut Errors) {
        let Some(spec) = &self.job.spec else { return };
        let limit = u32::try_from(spec.completions.unwrap_or(0)).unwrap_or(0);
        let completed_changed = self.changed(|s| s.completed_indexes.clone());
        let failed_changed = self.changed(|s| s.failed_indexes.clone());
        let completed = self.new.completed_indexes.as_deref().unwrap_or("");
        let at = self.path.child("completedIndexes");
        let indexed = spec.completion_mode.as_deref() == Some("Indexed");
        if completed_changed && !completed.is_empty() && !indexed {
            let text = "cannot set non-empty completedIndexes when non-indexed completion mode";
            errors.invalid(&at, completed, text);
        }
        let done = parse(completed, limit);
        if let (true, true, Err(fault)) = (completed_changed, indexed, &done) {
            errors.invalid(&at, completed, &format!("error parsing completedIndexes: {fault}"));
        }
        let at = self.path.child("failedIndexes");
        let Some(failed) = &self.new.failed_indexes else { return };
        if failed_changed && spec.backoff_limit_per_index.is_none() {
            let text = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
            errors.invalid(&at, failed, text);
        }
        let lost = parse(failed, limit);
        if let (true, true, Err(fault)) = (failed_changed, spec.backoff_limit_per_index.is_some(), &lost) {
            errors.invalid(&at, failed, &format!("error parsing failedIndexes: {fault}"));
        }
        if let (Ok(done), Ok(lost)) = (done, lost)
            && (completed_changed || failed_changed)
            && let Some(index) = overlap(&done, &lost)
        {
            let text = format!("failedIndexes and completedIndexes overlap at index: {index}");
            errors.invalid(&at, failed, &text);
        }
    }

    /// What cannot be taken back.
    fn is_kept(&self, errors: &mut Errors) {
        let spec = self.job.spec.clone().unwrap_or_default();
        for kind in [FAILED, COMPLETE, FAILURE_TARGET, CRITERIA_MET] {
            if holds(self.old, kind) && !holds(self.new, kind) {
                let text = format!("cannot disable the terminal {kind}=True condition");
                errors.push(untold(&self.path.child("conditions"), text));
            }
        }
        let (failed, before) = (self.new.failed.unwrap_or(0), self.old.failed.unwrap_or(0));
        if failed < before {
            errors.invalid(&self.path.child("failed"), &failed, "cannot decrease the failed counter");
        }
        // An indexed Job whose completions go with its parallelism can be made smaller.
        let elastic =
            spec.completion_mode.as_deref() == Some("Indexed") && spec.completions == spec.parallelism;
        let (succeeded, before) = (self.new.succeeded.unwrap_or(0), self.old.succeeded.unwrap_or(0));
        if succeeded < before && !elastic {
            let text = "cannot decrease the succeeded counter";
            errors.invalid(&self.path.child("succeeded"), &succeeded, text);
        }
        let (end, was) = (&self.new.completion_time, &self.old.completion_time);
        if was.is_some() && end != was {
            let text = "completionTime cannot be mutated";
            errors.invalid(&self.path.child("completionTime"), end, text);
        }
        let suspended = |s: &JobStatus| holds(s, "Suspended");
        let resumes = suspended(self.old) && !suspended(self.new);
        let (start, was) = (&self.new.start_time, &self.old.start_time);
        if was.is_some() && start != was && spec.suspend != Some(true) && !resumes {
            let at = self.path.child("startTime");
            match start {
                None => errors.push(Error::required(&at, "startTime cannot be removed for unsuspended job")),
                Some(_) => errors.invalid(&at, start, "startTime cannot be modified for unsuspended job"),
            }
        }
    }
}

/// Intervals of indexes, in order.
type Intervals = Vec<(u32, u32)>;

/// Reads `1,3-5`.
fn parse(text: &str, limit: u32) -> Result<Intervals, String> {
    let mut found: Intervals = Vec::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let number = |text: &str| {
            let read: Result<u32, _> = text.parse();
            read.map_err(|_| format!("cannot convert string to integer for index: \"{text}\""))
        };
        let ends: Vec<&str> = part.split('-').collect();
        let (first, last) = match ends.as_slice() {
            [one] => (number(one)?, number(one)?),
            [first, last] => (number(first)?, number(last)?),
            _ => {
                return Err(format!(
                    "the fragment \"{part}\" violates the requirement that an index interval can have at most two \
                     parts separated by '-'"
                ));
            }
        };
        if first > last && ends.len() == 2 {
            return Err(format!("non-increasing order, previous: {first}, current: {last}"));
        }
        if let Some((_, before)) = found.last().filter(|(_, before)| *before >= first) {
            return Err(format!("non-increasing order, previous: {before}, current: {first}"));
        }
        if last >= limit {
            return Err(format!("too large index: \"{last}\""));
        }
        found.push((first, last));
    }
    Ok(found)
}

fn overlap(a: &Intervals, b: &Intervals) -> Option<u32> {
    let (mut i, mut j) = (0, 0);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        if x.0.max(y.0) <= x.1.min(y.1) {
            return Some(x.0.max(y.0));
        }
        if x.1 < y.1 { i += 1 } else { j += 1 }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Kind as _;
    use serde_json::{Value, json};

    fn faults(spec: Value, old: Value, new: Value) -> Vec<String> {
        let job = |status: Value| Job::from_value(json!({"spec": spec, "status": status})).unwrap();
        update(&job(new), &job(old)).iter().map(ToString::to_string).collect()
    }

    fn spec() -> Value {
        json!({"template": {}, "completions": 5, "parallelism": 2, "completionMode": "Indexed",
            "backoffLimitPerIndex": 1})
    }

    fn conditions(kinds: &[&str]) -> Value {
        kinds.iter().map(|k| json!({"type": k, "status": "True"})).collect()
    }

    const T: &str = "2026-01-01T00:00:00Z";

    #[test]
    fn a_job_ends_in_steps_and_stays_ended() {
        let running = json!({"startTime": T, "active": 1});
        let ended = |kinds: &[&str]| json!({"startTime": T, "conditions": conditions(kinds)});
        assert_eq!(
            faults(spec(), running.clone(), ended(&["Failed"])),
            [
                "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition"
            ]
        );
        assert!(faults(spec(), running.clone(), ended(&["FailureTarget", "Failed"])).is_empty());
        let mut complete = ended(&["SuccessCriteriaMet", "Complete"]);
        assert_eq!(
            faults(spec(), running.clone(), complete.clone()),
            ["status.completionTime: Required value: completionTime is required for Complete jobs"]
        );
        complete["completionTime"] = T.into();
        assert!(faults(spec(), running.clone(), complete.clone()).is_empty());
        assert_eq!(
            faults(spec(), complete.clone(), json!({"startTime": T, "completionTime": T})),
            [
                "status.completionTime: Invalid value: \"2026-01-01T00:00:00Z\": cannot set completionTime when \
                 there is no Complete=True condition",
                "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
                "status.conditions: Invalid value: cannot disable the terminal SuccessCriteriaMet=True condition",
            ]
        );
        complete["active"] = 1.into();
        assert_eq!(
            faults(spec(), running, complete),
            ["status.active: Invalid value: 1: active>0 is invalid for finished job"]
        );
    }

    #[test]
    fn indexes_are_in_order_and_in_one_list() {
        let told = |completed: &str, failed: &str| {
            let new = json!({"completedIndexes": completed, "failedIndexes": failed});
            faults(spec(), json!({}), new)
        };
        assert!(told("0,2-3", "1,4").is_empty());
        assert_eq!(
            told("3,1", "4"),
            [
                "status.completedIndexes: Invalid value: \"3,1\": error parsing completedIndexes: non-increasing \
              order, previous: 3, current: 1"
            ]
        );
        assert_eq!(
            told("0-2", "1"),
            [
                "status.failedIndexes: Invalid value: \"1\": failedIndexes and completedIndexes overlap at index: 1"
            ]
        );
        assert_eq!(
            told("5", ""),
            [
                "status.completedIndexes: Invalid value: \"5\": error parsing completedIndexes: too large index: \
              \"5\""
            ]
        );
    }

    #[test]
    fn counters_do_not_fall_and_a_start_stays() {
        assert_eq!(
            faults(spec(), json!({"failed": 2, "succeeded": 1, "startTime": T}), json!({"failed": 1})),
            [
                "status.failed: Invalid value: 1: cannot decrease the failed counter",
                "status.succeeded: Invalid value: 0: cannot decrease the succeeded counter",
                "status.startTime: Required value: startTime cannot be removed for unsuspended job",
            ]
        );
    }
}
