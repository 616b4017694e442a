//! Which image of the product runs: figures of another one than this checkout makes would be told as this one's. Runs kubectl.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::super::install::NAMESPACE;
use super::super::store::Store;

/// Checks that the operator, the Datastore's replicas and its other pods run this image, and no other one of the product.
pub fn ensure_is(store: &Store<'_>, image: &str) -> Result<()> {
    let selector = format!("understudy.dev/datastore={}", store.name);
    let mut pods = store.access.items(&["-n", NAMESPACE, "pods"])?;
    pods.extend(store.access.items(&["-n", &store.namespace, "pods", "-l", &selector])?);
    let found = running(&pods, image);
    let others: Vec<_> =
        found.iter().filter(|(_, its)| its != image).map(|(pod, its)| format!("{pod} runs {its}")).collect();
    ensure!(
        others.is_empty() && !found.is_empty(),
        "this checkout makes {image}, and not all that is measured runs it{}{}. Roll it out with `cargo lab demo`, or check out what runs",
        if others.is_empty() { "" } else { ": " },
        others.join(", ")
    );
    Ok(())
}

/// Pods with the image of the product that each runs; of several containers the first that runs another than this. Pure.
fn running(pods: &[Value], image: &str) -> Vec<(String, String)> {
    let repository = repository(image);
    let of_pod = |pod: &Value| {
        let lists = [&pod["spec"]["initContainers"], &pod["spec"]["containers"]];
        let all = lists.into_iter().filter_map(Value::as_array).flatten();
        let images = all.filter_map(|container| container["image"].as_str());
        let ours: Vec<&str> = images.filter(|its| self::repository(its) == repository).collect();
        let its = ours.iter().find(|its| **its != image).or(ours.first())?;
        Some((pod["metadata"]["name"].as_str().unwrap_or("-").to_owned(), (*its).to_owned()))
    };
    // One that is being deleted is not measured any more.
    pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).filter_map(of_pod).collect()
}

/// What is in front of the tag.
fn repository(image: &str) -> &str {
    image.rsplit_once(':').map_or(image, |(repository, _)| repository)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, init: &str, main: &str) -> Value {
        json!({"metadata": {"name": name}, "spec": {"initContainers": [{"image": init}], "containers": [{"image": main}]}})
    }

    #[test]
    fn an_image_of_the_product_that_is_another_is_found_wherever_it_runs() {
        let mut going = pod("going", "understudy:old", "mysql:9");
        going["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
        let pods = [
            pod("replica", "understudy:new", "mysql:9"),
            pod("stale-replica", "understudy:old", "mysql:9"),
            pod("stale-operator", "understudy:new", "understudy:old"),
            pod("view", "other:1", "json-events:1"),
            going,
        ];
        let found = running(&pods, "understudy:new");
        let found: Vec<_> = found.iter().map(|(pod, image)| (pod.as_str(), image.as_str())).collect();
        let wanted =
            [("replica", "understudy:new"), ("stale-replica", "understudy:old"), ("stale-operator", "understudy:old")];
        assert_eq!(found, wanted);
    }
}
