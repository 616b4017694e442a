//! Both charts into a cluster. Runs helm.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::access::Access;
use crate::paths::Paths;
use crate::progress::Ui;
use crate::run;

/// Where the operator lives.
pub const NAMESPACE: &str = "understudy-system";
/// Its release and Deployment.
pub const RELEASE: &str = "understudy";
/// The release of the definitions.
pub const CRDS: &str = "understudy-crds";
const ROLLED_WITHIN: Duration = Duration::from_secs(120);

/// Installs or upgrades both charts and waits until the operator is ready.
pub fn charts(access: &Access, paths: &Paths, ui: &Ui, image: &str) -> Result<()> {
    let step = ui.step("install the charts", None);
    let (repository, tag) = split_image(image)?;
    let repository = format!("image.repository={repository}");
    let tag = format!("image.tag={tag}");
    for (release, values) in [(CRDS, vec![]), (RELEASE, vec!["--set-string", &repository, "--set-string", &tag])] {
        let chart = paths.checkout.join("charts").join(release);
        ensure!(chart.is_dir(), "there is no chart {}", chart.display());
        let mut command =
            access.helm(&["upgrade", "--install", release, "--namespace", NAMESPACE, "--create-namespace"]);
        command.args(["--wait", "--timeout", "3m"]).args(values).arg(&chart);
        run::output(&mut command).with_context(|| format!("cannot install the chart {release}"))?;
    }
    // helm is content with one pod less than asked for, and the last one may still be of the image before.
    access.rollout(NAMESPACE, RELEASE, ROLLED_WITHIN)?;
    step.done();
    Ok(())
}

/// Repository and tag of an image; a registry may have a port, so the tag is what follows the last colon after the last slash.
fn split_image(image: &str) -> Result<(&str, &str)> {
    let name_at = image.rfind('/').map_or(0, |i| i + 1);
    let colon = image[name_at..].rfind(':').with_context(|| format!("`{image}` has no tag"))? + name_at;
    Ok((&image[..colon], &image[colon + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_is_told_from_a_registrys_port() {
        for (image, want) in [
            ("understudy:0.1.0", Some(("understudy", "0.1.0"))),
            ("host:5000/a/understudy:1", Some(("host:5000/a/understudy", "1"))),
            ("host:5000/understudy", None),
        ] {
            assert_eq!(split_image(image).ok(), want, "{image}");
        }
    }
}
