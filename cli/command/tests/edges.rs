//! What people meet at the edges of the commands: a full disk, a narrow terminal, a spreadsheet, a group that must be put back.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::process::Command;

use common::{Place, Ran};

fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A limit on the size of files is what a process can be given in place of a full disk: creating a file works, and filling it
/// does not.
fn with_small_files(place: &Place, args: &str) -> Ran {
    let script = format!("trap '' XFSZ; ulimit -f 100; exec '{}' {args}", env!("CARGO_BIN_EXE_tallybus"));
    Ran::of(Command::new("sh").args(["-c", &script]).current_dir(place.path()).output().unwrap())
}

#[test]
fn doctor_fails_a_disk_on_which_no_file_can_grow() {
    let place = Place::with_settings(
        "[sinks.a]\nkind = \"sqlite\"\npath = \"a.db\"\n[sinks.b]\nkind = \"sqlite\"\npath = \"b.db\"\n\
         [sinks.c]\nkind = \"parquet\"\npath = \"files\"\n",
    );
    std::fs::create_dir(place.file("files")).unwrap();
    place.run(&["emit", "hits", "5"]).expect(0);
    place.run(&["run", "--sink", "a", "--until-caught-up"]).expect(0);
    let entries = || std::fs::read_dir(place.path()).unwrap().count();
    let before = entries();
    place.run(&["doctor"]).expect(0);
    let ran = with_small_files(&place, "doctor").expect(1);
    for expected in [
        "the bus bus.db cannot grow: File too large",
        "FAIL  sink a: a.db cannot be written: File too large",
        "FAIL  sink b: b.db cannot be created: File too large",
        "FAIL  sink c: files cannot be written: File too large",
    ] {
        assert!(ran.out.contains(expected), "no {expected:?} in\n{}", ran.out);
    }
    assert_eq!(ran.out.matches("free some space").count(), 4, "{}", ran.out);
    assert_eq!(entries(), before, "nothing is left");
}

#[test]
fn doctor_stays_within_the_width_of_a_terminal_and_a_pipe_gets_whole_lines() {
    let place = Place::with_local();
    let narrow = Ran::of(place.command(&["doctor"]).env("COLUMNS", "60").output().unwrap()).expect(0);
    assert!(narrow.out.lines().all(|line| line.chars().count() <= 60), "{}", narrow.out);
    assert!(narrow.out.contains("\n      "), "what goes on is indented: {}", narrow.out);
    let whole = place.run(&["doctor"]).expect(0);
    assert!(whole.out.lines().any(|line| line.chars().count() > 60), "{}", whole.out);
    assert_eq!(flat(&narrow.out.replace(&clock(&narrow.out), "")), flat(&whole.out.replace(&clock(&whole.out), "")));
}

/// The line with the time.
fn clock(out: &str) -> String {
    out.lines().find(|line| line.contains("clock: ")).unwrap().to_owned()
}

#[test]
fn claims_and_settings_are_tables_for_a_spreadsheet() {
    let place = Place::with_local();
    place.run(&["topic", "create", "--partitions", "1"]).expect(0);
    place.run(&["emit", "hits", "5"]).expect(0);
    place.run(&["run", "--until-caught-up"]).expect(0);
    let claims = place.run(&["sink", "claims", "local", "--csv"]).expect(0);
    let lines: Vec<&str> = claims.out.lines().collect();
    assert_eq!(lines[0], "destination,group,topic,partition,stream");
    assert!(lines[1].contains(",tallybus.local,tallybus.counters,0,embedded:") && lines.len() == 2, "{claims:?}");
    let settings = place.run(&["config", "show", "--csv"]).expect(0);
    assert!(settings.out.starts_with("key,value,from,file,line,variable\n"), "{settings:?}");
    assert!(settings.out.contains("\nsinks.local.path,local.db,file,tallybus.toml,6,\n"), "{settings:?}");
    for args in [["sink", "claims", "local"].as_slice(), &["config", "show"]] {
        let ran = place.run(&[args, &["--csv", "--json"]].concat()).expect(2);
        assert!(ran.err.contains("two forms of one result"), "{ran:?}");
    }
}

#[test]
fn a_group_is_not_restored_beside_a_destination_that_lacks_its_counts() {
    let Some(kafka) = tallybus_tests::kafka() else { return };
    let place = Place::new();
    place.write(
        "tallybus.toml",
        &format!(
            "[bus]\nkind = \"kafka\"\nbrokers = \"{}\"\npartitions = 1\n[sinks.local]\nkind = \"sqlite\"\npath = \"local.db\"\n",
            kafka.bootstrap()
        ),
    );
    place.run(&["topic", "create"]).expect(0);
    place.run(&["emit", "hits", "5"]).expect(0);
    place.run(&["run", "--until-caught-up"]).expect(0);
    kafka.delete_group("tallybus.local").unwrap();
    // The destination was lost as well.
    std::fs::rename(place.file("local.db"), place.file("aside.db")).unwrap();
    let restore = ["group", "restore", "local", "--yes"];
    let refused = place.run(&restore).expect(2);
    for expected in ["nothing was changed", "1 message is passed over: never counted", "--yes --accept-loss`"] {
        assert!(flat(&refused.err).contains(expected), "no {expected:?} in {refused:?}");
    }
    let offline = place.run(&["group", "restore", "local", "--offline"]).expect(0);
    assert!(flat(&offline.out).contains("the destination was not asked (--offline)"), "{offline:?}");
    std::fs::rename(place.file("aside.db"), place.file("local.db")).unwrap();
    place.run(&restore).expect(0);
    place.run(&["run", "--until-caught-up"]).expect(0);
    place.run(&["audit"]).expect(0);
}

/// The rights of every file and directory below, those of directories without the bits that enter them.
fn rights_below(folder: &std::path::Path) -> Vec<(String, u32)> {
    use std::os::unix::fs::PermissionsExt;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        if entry.file_type().unwrap().is_dir() {
            found.push((name, mode & 0o666));
            found.extend(rights_below(&entry.path()));
        } else {
            found.push((name, mode));
        }
    }
    found
}

#[test]
fn files_that_are_created_are_their_users_alone_unless_the_environment_says_otherwise() {
    let sinks = "[sinks.a]\nkind = \"sqlite\"\npath = \"a.db\"\n[sinks.b]\nkind = \"parquet\"\npath = \"files\"\ncreate = true\n";
    let run = |umask: Option<&str>| {
        let place = Place::with_settings(sinks);
        for args in [&["emit", "hits", "5"][..], &["run", "--until-caught-up"]] {
            let mut command = place.command(args);
            command.envs(umask.map(|umask| ("TALLYBUS_UMASK", umask)));
            Ran::of(command.output().unwrap()).expect(0);
        }
        let mut found = rights_below(place.path());
        found.retain(|(name, _)| name != "tallybus.toml");
        found
    };
    let private = run(None);
    assert!(private.len() >= 5, "bus, database, directories and a file: {private:?}");
    assert!(private.iter().all(|(_, mode)| *mode == 0o600), "{private:?}");
    let shared = run(Some("027"));
    // The file of the bus is private however it is created.
    assert!(
        shared.iter().all(|(name, mode)| *mode == if name.starts_with("bus.db") { 0o600 } else { 0o640 }),
        "{shared:?}"
    );

    let place = Place::new();
    let wrong = Ran::of(place.command(&["sinks"]).env("TALLYBUS_UMASK", "rw").output().unwrap()).expect(2);
    assert!(wrong.err.contains("TALLYBUS_UMASK is not a umask"), "{wrong:?}");
}
