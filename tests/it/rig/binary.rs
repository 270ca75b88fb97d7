//! The driver for programs, shown with a shell; layers and layouts, shown with the tools that read them.

use crate::support::binary::{Binary, Output};
use crate::support::content::{Content, sha256};
use crate::support::database::Database;
use crate::support::image::{self, ImageBuilder};
use crate::support::skopeo::Skopeo;
use crate::support::{PATIENCE, layer, need};
use std::io::Write as _;
use std::process::{Command, Stdio};

fn shell() -> Binary {
    Binary::of("/bin/sh")
}

#[test]
fn a_program_runs_in_surroundings_of_its_own() {
    let program = shell().env("EXTRA", "more");
    let script =
        "echo $HOME; echo $FREIGHTLINER_DATABASE_URL $FREIGHTLINER_STATE_DIR $EXTRA $CARGO; cat; echo oh >&2; exit 3";
    let output = program.run_with_input(&["-c", script], b"typed").expect_code(3);
    let (home, url, state) = (program.home(), program.database().url(), program.state());
    assert_eq!(output.text(), format!("{}\n{url} {} more\ntyped", home.display(), state.display()));
    assert_eq!(output.errors(), "oh\n");
    let output = program.run(&["-c", "echo '{\"a\": [1]}'"]).success();
    assert_eq!(output.json()["a"][0], 1);
    assert!(std::panic::catch_unwind(|| output.clone().expect_code(1)).is_err());
}

#[test]
fn the_program_under_test_can_be_started() {
    let binary = Binary::new().on(Database::all().remove(0));
    // Whatever it says by now: it ends by itself, not by a signal.
    assert!(binary.run(&["--version"]).code().is_some());
}

#[test]
fn signals_reach_the_program() {
    // A shell cannot trap what was ignored when it began, as SIGINT is in whatever a script has put into the background.
    let program = Binary::of("/usr/bin/env");
    let script = "trap 'echo term; exit 7' TERM; trap 'echo int' INT; echo ready; while :; do sleep 0.01; done";
    let started = || {
        let running = program.spawn(&["--default-signal=INT", "/bin/sh", "-c", script]);
        crate::support::eventually("the shell", || running.stdout().contains("ready").then_some(()));
        running
    };
    let mut running = started();
    running.sigstop();
    running.sigterm();
    assert!(running.is_running() && !running.stdout().contains("term"));
    running.sigcont();
    let output = running.wait(PATIENCE);
    assert_eq!((output.code(), output.text().as_str()), (Some(7), "ready\nterm\n"));
    assert!(output.peak_memory_kib > 100, "{}", output.peak_memory_kib);
    running.sigint();

    let mut running = started();
    running.sigint();
    crate::support::eventually("the trap", || running.stdout().contains("int").then_some(()));
    let killed: Output = running.kill9();
    assert_eq!(killed.code(), None);
    let id = {
        let running = started();
        running.id()
    };
    assert!(!std::path::Path::new(&format!("/proc/{id}")).exists(), "a dropped handle leaves no process");
}

#[test]
fn sqlite3_reads_and_writes_the_database() {
    let program = shell();
    let Some(rows) = program.sql("CREATE TABLE t (a INTEGER) STRICT") else {
        return;
    };
    assert!(rows.is_empty());
    program.sql("INSERT INTO t VALUES (1), (2)");
    assert_eq!(program.sql("SELECT a, a * 2 FROM t ORDER BY a").unwrap(), ["1|2", "2|4"]);
    assert!(program.sql_refused("INSERT INTO t VALUES ('text')").unwrap().contains("cannot store TEXT"));
}

#[test]
fn docker_logins_are_written_where_docker_does() {
    let program = shell();
    program.docker_login("127.0.0.1:5000", "me", "secret");
    let output = program.run(&["-c", "cat ~/.docker/config.json"]).success();
    assert_eq!(output.json()["auths"]["127.0.0.1:5000"]["auth"], "bWU6c2VjcmV0");
}

#[test]
fn leftovers_are_found() {
    let program = shell();
    assert!(program.leftovers().is_empty());
    program.run(&["-c", "mkdir -p $FREIGHTLINER_STATE_DIR/tmp/x && touch $FREIGHTLINER_STATE_DIR/tmp/x/y"]).success();
    assert_eq!(program.leftovers(), [program.state().join("tmp/x/y")]);
}

#[test]
fn seeded_content_is_the_same_however_it_is_read() {
    let content = Content::seeded(3, 300_000);
    let whole = content.to_bytes();
    assert_eq!(content.slice(65_530..200_001), whole[65_530..200_001]);
    assert_eq!(content.chunks().collect::<Vec<_>>().concat(), whole);
    assert_ne!(whole[..65_536], whole[65_536..131_072]);
    assert_ne!(whole, Content::seeded(4, 300_000).to_bytes());
    assert_eq!(sha256(b"abc"), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

#[test]
fn layers_are_archives_that_tar_reads() {
    let Some(tar) = need("tar") else { return };
    for size in [0, 1, 511, 200_000] {
        let layer = layer::layer(5, size);
        let mut child = Command::new(&tar)
            .args(["-xzOf", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("run tar");
        let mut input = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || input.write_all(&layer.blob));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout, Content::seeded(5, size as u64).to_bytes());
    }
}

#[test]
fn a_layout_we_write_is_one_that_skopeo_reads_and_the_other_way_round() {
    let Some(skopeo) = Skopeo::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let layout = |name: &str| folder.path().join(name);
    let image =
        image::index(vec![ImageBuilder::oci(1).layers(2, 1_000).build(), ImageBuilder::oci(2).layer(10).build()]);
    image.write_layout(&layout("ours"), "v1");
    ImageBuilder::oci(3).layer(10).build().write_layout(&layout("ours"), "v2");
    assert!(image.layout_differences(&layout("ours"), "v1").is_empty());

    let at = |name: &str| format!("oci:{}:v1", layout(name).display());
    skopeo.copy(&at("ours"), &at("theirs"), &[]).success();
    assert_eq!(image.layout_differences(&layout("theirs"), "v1"), Vec::<String>::new());
    assert_eq!(skopeo.raw(&at("theirs")), image.manifest);

    let blob = image.all_blobs()[1].digest.replace(':', "/");
    std::fs::write(layout("ours").join("blobs").join(blob), "other").unwrap();
    assert_eq!(image.layout_differences(&layout("ours"), "v1").len(), 1);
    assert!(!image.layout_differences(&layout("ours"), "v2").is_empty(), "another image");
}
