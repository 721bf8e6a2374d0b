//! `cargo xtask flame`: samples of call stacks, as a picture and as a table of the widest frames.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail, ensure};
use tallybus_benches::report;
use tallybus_benches::table::Table;

use crate::stacks::Stacks;
use crate::{bench, command, instructions, picture};

/// How long a case runs under perf, about.
const LONG_ENOUGH: Duration = Duration::from_secs(4);
/// How long a benchmark may prepare before its worker starts.
const PATIENCE: Duration = Duration::from_secs(120);
/// Lines of the table.
const WIDEST: usize = 20;

/// Records one case, or the first worker that a benchmark starts.
pub(crate) fn run(name: &str, arguments: &[String]) -> Result<()> {
    let folder = command::target()?.join("flame");
    fs::create_dir_all(&folder)?;
    let data = folder.join(format!("{name}.data"));
    if bench::names().any(|bench| bench == name) {
        record_worker(name, arguments, &data)?;
    } else {
        ensure!(arguments.is_empty(), "a case takes no arguments");
        record_case(name, &data)?;
    }
    let stacks = read(&data)?;
    ensure!(stacks.samples() > 0, "perf took no sample");
    let svg = folder.join(format!("{name}.svg"));
    fs::write(&svg, picture::draw(&stacks, name))?;
    let mut table = Table::new(&["function", "itself", "with what it calls"]);
    for width in stacks.widest().into_iter().take(WIDEST) {
        table.row([width.frame, percent(width.own), percent(width.whole)]);
    }
    println!("{table}");
    println!("{} samples; {}", stacks.samples(), svg.display());
    Ok(())
}

fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

fn record_case(name: &str, data: &Path) -> Result<()> {
    instructions::build_with_names()?;
    let program = command::built("instructions")?;
    let mut times = instructions::times(name)?;
    let runs_for = |times: u64| -> Result<Duration> {
        let begun = Instant::now();
        command::output(Command::new(&program).args(["run", name, &times.to_string()]))?;
        Ok(begun.elapsed())
    };
    runs_for(times)?;
    // Some cases can only be repeated so often.
    while let Some(more) = times.checked_mul(4)
        && let Ok(took) = runs_for(more)
    {
        times = more;
        if took > LONG_ENOUGH / 4 {
            break;
        }
    }
    command::run(perf(data).arg("--").arg(&program).args(["run", name, &times.to_string()]))
}

fn record_worker(name: &str, arguments: &[String], data: &Path) -> Result<()> {
    ensure!(name != "hot_path", "the hot path has cases of its own: count_static, count_run_time and others");
    bench::build()?;
    bench::build_worker_with_names()?;
    let mut program = Command::new(command::built(name)?);
    let mut running =
        program.args(arguments).current_dir(report::root()).spawn().context("cannot start the benchmark")?;
    let recorded = record_descendant(&mut running, data);
    let ended = running.wait()?;
    recorded?;
    ensure!(ended.success(), "{name} failed: {ended}");
    Ok(())
}

fn record_descendant(running: &mut Child, data: &Path) -> Result<()> {
    let begun = Instant::now();
    loop {
        if let Some(worker) = descendants(running.id())?.into_iter().find(|pid| is_worker(*pid)) {
            // perf gives up when a thread ends while it looks at the process, as some do at the start.
            let recorded = command::run(perf(data).args(["-p", &worker.to_string()]));
            if recorded.is_ok() || !is_worker(worker) {
                return recorded;
            }
        }
        if let Some(status) = running.try_wait()? {
            bail!("the benchmark ended before a worker was seen: {status}");
        }
        if begun.elapsed() > PATIENCE {
            running.kill()?;
            bail!("the benchmark started no worker in {PATIENCE:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn perf(data: &Path) -> Command {
    let mut perf = Command::new("perf");
    // A clock, because a virtual machine has no counters; stacks from the unwind tables, because not all code keeps frame
    // pointers.
    perf.args(["record", "--quiet", "-e", "cpu-clock", "-F", "997", "--call-graph", "dwarf,16384", "-o"]).arg(data);
    perf
}

fn is_worker(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.file_name().is_some_and(|name| name == "tallybus"))
}

fn descendants(root: u32) -> Result<Vec<u32>> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten() {
            let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    Ok(found)
}

fn read(data: &PathBuf) -> Result<Stacks> {
    let mut perf = Command::new("perf");
    perf.args(["script", "--no-inline", "-F", "comm,ip,sym", "-i"]).arg(data);
    let (text, _) = command::output(&mut perf)?;
    Ok(Stacks::of_perf(&text))
}
