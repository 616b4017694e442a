//! Go programs, from the public module proxy.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Build, COREDNS, ETCD, HELM, KUBERNETES, VERSITYGW};
use crate::run;

const COMMANDS: [&str; 6] =
    ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"];

/// The linker would throw it away; what is not made need not be compiled.
const NO_DEBUG_INFO: &str = "-gcflags=all=-dwarf=false";

/// All programs of Kubernetes in one module, so that they share what they have in common.
pub fn kubernetes(build: &Build<'_>) -> Result<()> {
    let module = format!("k8s.io/kubernetes@v{KUBERNETES}");
    fs::write(build.work.join("go.mod"), "module understudy.lab/kubernetes\n\ngo 1.24.0\n")?;
    build.step.note("reading its go.mod");
    let answer = run::output(go(build).args(["mod", "download", "-json", &module]))?;
    let answer: serde_json::Value = serde_json::from_str(&answer).context("go mod download did not answer in JSON")?;
    let go_mod = answer["GoMod"].as_str().context("go mod download named no go.mod")?;
    fs::write(build.work.join("go.mod"), kubernetes_go_mod(&fs::read_to_string(go_mod)?))?;
    let packages: Vec<_> = COMMANDS.iter().map(|c| format!("k8s.io/kubernetes/cmd/{c}")).collect();
    let flags = format!(
        "-s -w -X k8s.io/component-base/version.gitVersion=v{KUBERNETES} -X k8s.io/component-base/version.gitMajor=1 \
         -X k8s.io/component-base/version.gitMinor=34 -X k8s.io/component-base/version.gitTreeState=clean"
    );
    compile(build, &flags, &packages)
}

/// A module that requires Kubernetes and gives each of its staging repositories the version that belongs to it.
fn kubernetes_go_mod(theirs: &str) -> String {
    let staging = KUBERNETES.replacen('1', "0", 1);
    let mut lines = vec!["module understudy.lab/kubernetes".to_owned(), String::new()];
    lines.extend(theirs.lines().find(|l| l.starts_with("go ")).map(str::to_owned));
    lines.push(format!("require k8s.io/kubernetes v{KUBERNETES}"));
    let mut replaced: Vec<_> = theirs
        .lines()
        .filter_map(|l| l.trim().strip_suffix(" v0.0.0"))
        .filter(|m| m.starts_with("k8s.io/") && !m.contains(' '))
        .map(|m| format!("replace {m} => {m} v{staging}"))
        .collect();
    replaced.sort();
    replaced.dedup();
    lines.extend(replaced);
    lines.join("\n") + "\n"
}

/// etcd is a library; its main is three lines.
pub fn etcd(build: &Build<'_>) -> Result<()> {
    fs::write(
        build.work.join("go.mod"),
        format!("module understudy.lab/etcd\n\ngo 1.24.0\n\nrequire go.etcd.io/etcd/server/v3 v{ETCD}\n"),
    )?;
    let main = "package main\n\nimport (\n\t\"os\"\n\n\t\"go.etcd.io/etcd/server/v3/etcdmain\"\n)\n\nfunc main() { etcdmain.Main(os.Args) }\n";
    fs::write(build.work.join("main.go"), main)?;
    compile(build, "-s -w", &[".".to_owned()])
}

/// S3 server.
pub fn versitygw(build: &Build<'_>) -> Result<()> {
    install(build, "-s -w", &format!("github.com/versity/versitygw/cmd/versitygw@v{VERSITYGW}"))
}

/// The plugins that the lab's Corefile names. All of them would bring the clients of three clouds, which take a minute to compile.
pub const COREDNS_PLUGINS: [&str; 8] =
    ["cache", "errors", "health", "hosts", "kubernetes", "metrics", "ready", "reload"];

/// Cluster DNS. Its main is a list of plugins.
pub fn coredns(build: &Build<'_>) -> Result<()> {
    fs::write(
        build.work.join("go.mod"),
        format!("module understudy.lab/coredns\n\ngo 1.24.0\n\nrequire github.com/coredns/coredns v{COREDNS}\n"),
    )?;
    let plugins: String =
        COREDNS_PLUGINS.iter().map(|name| format!("\t_ \"github.com/coredns/coredns/plugin/{name}\"\n")).collect();
    let main = format!(
        "package main\n\nimport (\n\t\"github.com/coredns/coredns/coremain\"\n{plugins})\n\nfunc main() {{ coremain.Run() }}\n"
    );
    fs::write(build.work.join("main.go"), main)?;
    compile(build, "-s -w", &[".".to_owned()])
}

/// Helm.
pub fn helm(build: &Build<'_>) -> Result<()> {
    let flags = format!("-s -w -X helm.sh/helm/v3/internal/version.version=v{HELM}");
    install(build, &flags, &format!("helm.sh/helm/v3/cmd/helm@v{HELM}"))
}

fn go(build: &Build<'_>) -> Command {
    let mut command = run::sh("go");
    command.env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=mod").env("GOWORK", "off").current_dir(build.work);
    command
}

fn compile(build: &Build<'_>, ldflags: &str, packages: &[String]) -> Result<()> {
    build.step.note("fetching modules");
    let total = run::output(go(build).args(["list", "-deps"]).args(packages))?.lines().count();
    let bin = build.dir.join("bin");
    fs::create_dir_all(&bin)?;
    let mut command = go(build);
    command
        .args(["build", "-v", "-trimpath", NO_DEBUG_INFO, "-ldflags", ldflags, "-o"])
        .arg(format!("{}/", bin.display()));
    command.args(packages);
    count_packages(build, &command, total)
}

fn install(build: &Build<'_>, ldflags: &str, package: &str) -> Result<()> {
    let mut command = go(build);
    command.env("GOFLAGS", "").env("GOBIN", build.dir.join("bin"));
    command.args(["install", "-v", "-trimpath", NO_DEBUG_INFO, "-ldflags", ldflags, package]);
    count_packages(build, &command, 0)?;
    ensure!(build.dir.join("bin").is_dir(), "go install left no program");
    Ok(())
}

fn count_packages(build: &Build<'_>, command: &Command, total: usize) -> Result<()> {
    let mut compiled = 0;
    run::watched(command, build.log, |line| {
        if !line.starts_with("go: ") {
            compiled += 1;
        }
        build.step.progress(compiled, total, "packages");
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staging_repositories_get_their_version_and_nothing_else_does() {
        let theirs = "module k8s.io/kubernetes\n\ngo 1.24.0\n\nrequire (\n\tk8s.io/api v0.0.0\n\tk8s.io/utils v0.0.0-20250604170112-4c0f3b243397\n\tgithub.com/x/y v0.0.0\n\tk8s.io/klog/v2 v2.130.1\n)\n";
        let ours = kubernetes_go_mod(theirs);
        assert!(ours.contains("replace k8s.io/api => k8s.io/api v0.34.4\n"), "{ours}");
        assert!(ours.contains("go 1.24.0\n") && ours.contains("require k8s.io/kubernetes v1.34.4\n"), "{ours}");
        assert_eq!(ours.matches("replace").count(), 1, "{ours}");
    }
}
