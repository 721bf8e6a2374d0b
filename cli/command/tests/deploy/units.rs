//! The systemd units.

use std::path::Path;
use std::process::Command;

use crate::common::Place;
use crate::{is_a_command, repository, run, succeed};

/// A directory with the units as an operator lays them out; the command stands where it was built.
fn laid_out() -> Place {
    let place = Place::new();
    let unit = std::fs::read_to_string(repository("deploy/systemd/tallybus@.service")).unwrap();
    place.write("tallybus@.service", &unit.replace("/usr/local/bin/tallybus", env!("CARGO_BIN_EXE_tallybus")));
    std::fs::create_dir(place.file("tallybus@influx.service.d")).unwrap();
    let secrets = place.file("tallybus@influx.service.d/secrets.conf");
    std::fs::copy(repository("deploy/systemd/influx-secrets.conf"), secrets).unwrap();
    place
}

fn analyze(program: &Path, place: &Place, args: &[&str]) -> (bool, String) {
    let mut command = Command::new(program);
    // The units of the system are looked up behind those here.
    command.env("SYSTEMD_UNIT_PATH", format!("{}:", place.path().display())).args(args);
    let (well, out, err) = run(&mut command);
    (well, format!("{out}{err}"))
}

#[test]
fn the_unit_is_understood_and_confined() {
    let Some(program) = tallybus_tests::program("systemd-analyze") else { return };
    let place = laid_out();
    let unit = "tallybus@influx.service";
    let (well, said) = analyze(&program, &place, &["verify", "--man=no", unit]);
    assert!(well && said.is_empty(), "{said}");
    // In tenths: 0 has no access to anything, 100 is a process without any bounds.
    let (well, said) = analyze(&program, &place, &["security", "--offline=true", "--no-pager", "--threshold=15", unit]);
    assert!(well, "{said}");
}

#[test]
fn what_the_units_say_is_what_the_command_takes() {
    let unit = std::fs::read_to_string(repository("deploy/systemd/tallybus@.service")).unwrap();
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/tallybus ")).unwrap();
    is_a_command(&start.split(' ').map(str::to_owned).collect::<Vec<_>>());

    // The drop-in's variable sets the sink's secret from the file, whatever the settings say there.
    let drop_in = std::fs::read_to_string(repository("deploy/systemd/influx-secrets.conf")).unwrap();
    let credential = drop_in.lines().find_map(|line| line.strip_prefix("LoadCredential=")?.split(':').next()).unwrap();
    let variable = drop_in.lines().find_map(|line| line.strip_prefix("Environment=")).unwrap();
    let (name, value) = variable.split_once('=').unwrap();
    let place = Place::new();
    place.write(credential, "s3cret\n");
    place.write(
        "tallybus.toml",
        "[bus]\nkind = \"kafka\"\nbrokers = \"kafka:9092\"\n[sinks.influx]\nkind = \"influxdb\"\n\
         url = \"http://influxdb:8086\"\norg = \"o\"\nbucket = \"b\"\ntoken = \"file:/nowhere\"\n",
    );
    place.run(&["doctor", "--offline"]).expect(2);
    let value = value.replace("%d", &place.path().display().to_string());
    succeed(place.command(&["doctor", "--offline"]).env(name, value));
}
