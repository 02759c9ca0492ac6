//! What a Job's status may say, and how it may change: counters do not fall, a Job that has ended stays so, and it
//! ends in steps. What a status said before and says still is not held against it.

use super::indexes;
use crate::behaviour::check::Check;
use crate::behaviour::workload::counts;
use crate::behaviour::{fill, internal};
use crate::field::{Error, Errors, Path};
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
    change.contradictions(&mut errors);
    change.times(&mut errors);
    change.steps(&mut errors);
    change.end(&mut errors);
    change.indexes(&mut errors);
    change.pods(&mut errors);
    change.success(&mut errors);
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

impl Change<'_> {
    fn changed<T: PartialEq>(&self, part: impl Fn(&JobStatus) -> T) -> bool {
        part(self.new) != part(self.old)
    }

    fn turned(&self, kind: &str) -> bool {
        self.changed(|s| holds(s, kind))
    }

    /// One error on the conditions per broken rule.
    fn rules(&self, errors: &mut Errors, rules: &[(bool, &str)]) {
        let path = self.path.child("conditions");
        let broken = rules.iter().filter(|(broken, _)| *broken);
        errors.extend(broken.map(|(_, text)| Error::untold(&path, *text)));
    }

    fn contradictions(&self, errors: &mut Errors) {
        let (complete, failed) = (holds(self.new, COMPLETE), holds(self.new, FAILED));
        let failing = holds(self.new, FAILURE_TARGET);
        let (completes, fails) = (self.turned(COMPLETE), self.turned(FAILED));
        let targets = self.turned(FAILURE_TARGET);
        self.rules(
            errors,
            &[
                (
                    (completes || fails) && complete && failed,
                    "cannot set Complete=True and Failed=true conditions",
                ),
                (
                    (completes || targets) && complete && failing,
                    "cannot set Complete=True and FailureTarget=true conditions",
                ),
            ],
        );
    }

    /// A Job ends in steps.
    fn steps(&self, errors: &mut Errors) {
        let fails = self.turned(FAILED) || self.changed(|s| s.failed_indexes.clone());
        let completes = self.turned(COMPLETE) || self.turned(CRITERIA_MET);
        let lacks = |after: &str, before: &str| holds(self.new, after) && !holds(self.new, before);
        self.rules(
            errors,
            &[
                (
                    fails && lacks(FAILED, FAILURE_TARGET),
                    "cannot set Failed=True condition without the FailureTarget=true condition",
                ),
                (
                    completes && lacks(COMPLETE, CRITERIA_MET),
                    "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
                ),
            ],
        );
    }

    /// What cannot be while a Job has ended.
    fn end(&self, errors: &mut Errors) {
        let new = self.new;
        if !finished(new) {
            return;
        }
        let ended = self.changed(finished);
        let active = new.active.unwrap_or(0);
        if (ended || self.changed(|s| s.active)) && active > 0 {
            let text = "active>0 is invalid for finished job";
            errors.invalid(&self.path.child("active"), &active, text);
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
            let value = internal::show(&waiting, internal::UNCOUNTED_PODS);
            let path = self.path.child("uncountedTerminatedPods");
            errors.push(Error::invalid(&path, "", text).showing(value));
        }
    }

    /// What cannot be of the pods' numbers.
    fn pods(&self, errors: &mut Errors) {
        let new = self.new;
        let terminating = new.terminating.unwrap_or(0);
        let changed = self.changed(finished) || self.changed(|s| s.terminating);
        if changed && finished(new) && terminating > 0 {
            let text = "terminating>0 is invalid for finished job";
            errors.invalid(&self.path.child("terminating"), &terminating, text);
        }
        let (active, ready) = (new.active.unwrap_or(0), new.ready.unwrap_or(0));
        if (self.changed(|s| s.active) || self.changed(|s| s.ready)) && ready > active {
            let text = "cannot set more ready pods than active";
            errors.invalid(&self.path.child("ready"), &ready, text);
        }
    }

    /// What goes together with success, whether it changed or not.
    fn success(&self, errors: &mut Errors) {
        let enough = holds(self.new, CRITERIA_MET);
        let has_policy = self.job.spec.as_ref().is_some_and(|spec| spec.success_policy.is_some());
        self.rules(
            errors,
            &[
                (
                    enough && holds(self.new, FAILED),
                    "cannot set SuccessCriteriaMet=True and Failed=true conditions",
                ),
                (
                    enough && holds(self.new, FAILURE_TARGET),
                    "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
                ),
                (
                    has_policy && !enough && holds(self.new, COMPLETE),
                    "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
                ),
            ],
        );
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
        let completed_changed = self.changed(|s| s.completed_indexes.clone());
        let failed_changed = self.changed(|s| s.failed_indexes.clone());
        let completed = self.new.completed_indexes.as_deref().unwrap_or("");
        let failed = self.new.failed_indexes.as_deref();
        let (done, lost) = (self.path.child("completedIndexes"), self.path.child("failedIndexes"));
        let readable = |errors: &mut Errors, path: &Path, field: &str, text: &str| {
            let limit = spec.completions.unwrap_or(i32::MAX);
            if let (Some(_), Err(fault)) = (spec.completions, indexes::parse(text, limit)) {
                errors.invalid(path, text, &format!("error parsing {field}: {fault}"));
            }
        };
        if completed_changed {
            readable(errors, &done, "completedIndexes", completed);
        }
        if let Some(failed) = failed.filter(|_| failed_changed && spec.backoff_limit_per_index.is_some()) {
            readable(errors, &lost, "failedIndexes", failed);
        }
        let indexed = spec.completion_mode.as_deref() == Some("Indexed");
        if completed_changed && !completed.is_empty() && !indexed {
            let text = "cannot set non-empty completedIndexes when non-indexed completion mode";
            errors.invalid(&done, completed, text);
        }
        let Some(failed) = failed else { return };
        if failed_changed && spec.backoff_limit_per_index.is_none() {
            let text = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
            errors.invalid(&lost, failed, text);
        }
        if let Some(limit) = spec.completions.filter(|_| completed_changed || failed_changed)
            && let Some(index) = indexes::overlap(completed, failed, limit)
        {
            let text = format!("failedIndexes and completedIndexes overlap at index: {index}");
            errors.invalid(&lost, failed, &text);
        }
    }

    /// What cannot be taken back.
    fn is_kept(&self, errors: &mut Errors) {
        let spec = self.job.spec.clone().unwrap_or_default();
        let lost = |kind: &str| holds(self.old, kind) && !holds(self.new, kind);
        for kind in [FAILED, COMPLETE, FAILURE_TARGET].into_iter().filter(|kind| lost(kind)) {
            self.rules(errors, &[(true, &format!("cannot disable the terminal {kind}=True condition"))]);
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
        if was.is_some() && end.is_some() && end != was {
            let text = "completionTime cannot be mutated";
            errors.invalid(&self.path.child("completionTime"), end, text);
        }
        let suspended = |s: &JobStatus| holds(s, "Suspended");
        let resumes = suspended(self.old) && !suspended(self.new);
        let (start, was) = (&self.new.start_time, &self.old.start_time);
        if was.is_some() && start != was && spec.suspend != Some(true) && !resumes {
            let text = "startTime cannot be removed for unsuspended job";
            errors.push(Error::required(&self.path.child("startTime"), text));
        }
        let met_late = holds(self.new, CRITERIA_MET) && !holds(self.old, CRITERIA_MET);
        self.rules(
            errors,
            &[
                (lost(CRITERIA_MET), "cannot disable the SuccessCriteriaMet=True condition"),
                (
                    met_late && holds(self.old, COMPLETE),
                    "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions",
                ),
            ],
        );
    }
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
                "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
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
