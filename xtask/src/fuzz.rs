//! Runs the fuzz targets of `fuzz/` for a while, with libFuzzer and no other tool. What is found is kept below
//! `fuzz/artifacts`, what covers new ground below `fuzz/corpus`.

use crate::check::{Outcome, cargo, run};
use std::path::Path;
use std::process::Command;

/// The compiler's own coverage instrumentation, which stable compilers have too.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Cdebug-assertions -Ccodegen-units=1";
const FOLDER: &str = "fuzz";

/// Each target (or the one named) for `seconds`.
pub fn fuzz(target: Option<&str>, seconds: u32) -> Outcome {
    let targets = targets()?;
    if let Some(wanted) = target.filter(|t| !targets.iter().any(|known| known == t)) {
        return Err(format!("there is no fuzz target {wanted:?}; there are: {}", targets.join(", ")));
    }
    let mut build = cargo();
    build.current_dir(FOLDER).args(["build", "--release", "--target", "host-tuple"]);
    run(build.env("RUSTFLAGS", FLAGS))?;
    for name in targets.iter().filter(|t| target.is_none_or(|wanted| wanted == *t)) {
        let (corpus, artifacts) = (format!("{FOLDER}/corpus/{name}"), format!("{FOLDER}/artifacts/{name}/"));
        for folder in [&corpus, &artifacts] {
            std::fs::create_dir_all(folder).map_err(|e| format!("{folder}: {e}"))?;
        }
        let program = program(name)?;
        run(Command::new(program).arg(&corpus).args([
            format!("-max_total_time={seconds}"),
            format!("-artifact_prefix={artifacts}"),
            "-print_final_stats=1".to_owned(),
            "-verbosity=0".to_owned(),
        ]))?;
    }
    Ok(())
}

fn targets() -> Result<Vec<String>, String> {
    let folder = Path::new(FOLDER).join("fuzz_targets");
    let files = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut names: Vec<String> =
        files.flatten().filter_map(|f| Some(f.path().file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

/// The built program, below the folder of whatever target this host is.
fn program(name: &str) -> Result<std::path::PathBuf, String> {
    let folder = Path::new(FOLDER).join("target");
    let hosts = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut programs = hosts.flatten().map(|host| host.path().join("release").join(name));
    programs.find(|p| p.is_file()).ok_or_else(|| format!("the target {name} was not built"))
}
