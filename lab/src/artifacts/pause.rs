//! The program that holds a pod's namespaces: it waits and reaps.

use std::fs;

use anyhow::Result;

use super::Build;
use crate::run;

const SOURCE: &str = r"#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void stop(int s) { (void)s; _exit(0); }
static void reap(int s) { (void)s; while (waitpid(-1, 0, WNOHANG) > 0); }
int main(void) {
  signal(SIGINT, stop);
  signal(SIGTERM, stop);
  signal(SIGCHLD, reap);
  for (;;) pause();
}
";

/// Static, so that its image is this one file.
pub fn pause(build: &Build<'_>) -> Result<()> {
    let source = build.work.join("pause.c");
    fs::write(&source, SOURCE)?;
    fs::create_dir_all(build.dir.join("bin"))?;
    run::output(run::sh("gcc -static -Os -s -Wall -o").arg(build.dir.join("bin/pause")).arg(&source))?;
    Ok(())
}
