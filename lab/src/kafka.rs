//! Three Kafka brokers (each also a controller, no ZooKeeper) on the host's bridge address.

use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::artifacts::KAFKA;
use crate::lab::Lab;
use crate::state::write_atomic;
use crate::topology::{HOST, KAFKA_CONTROLLER_PORT, KAFKA_PORT};
use crate::{api, run};

/// Node ids of the brokers.
pub const BROKERS: [u16; 3] = [1, 2, 3];

/// Sixteen bytes in Kafka's base64; a cluster made anew has the same id, which does no harm here.
const CLUSTER_ID: &str = "dW5kZXJzdHVkeS1sYWItMA";

/// log4j2 in the one format that needs no further jars.
const LOGGING: &str = "status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
";

/// Name of a broker's process in the state.
pub fn process_name(id: u16) -> String {
    format!("kafka-{id}")
}

/// Starts the brokers that are not running.
pub fn start(lab: &mut Lab<'_>) -> Result<()> {
    let logging = lab.paths.config().join("kafka-log4j2.properties");
    write_atomic(&logging, LOGGING.as_bytes())?;
    format_disks(lab)?;
    for id in BROKERS {
        let (properties, text) = write_properties(lab, id)?;
        let mut command = java(lab);
        command.args(["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError"]);
        command.arg(format!("-Dlog4j2.configurationFile={}", logging.display()));
        command.arg("kafka.Kafka").arg(properties);
        lab.ensure_process(&process_name(id), &command, &[&text])?;
    }
    Ok(())
}

/// Waits until all brokers take connections.
pub fn wait_ready(lab: &Lab<'_>) -> Result<()> {
    for id in BROKERS {
        let name = process_name(id);
        api::wait(Duration::from_secs(90), &format!("{name} does not answer"), || {
            if lab.running(&name).is_none() {
                bail!("{name} ended; {}", lab.log_tail(&name));
            }
            Ok(is_listening(id))
        })?;
    }
    Ok(())
}

/// Whether the broker takes connections. Its port opens when it has joined its cluster.
pub fn is_listening(id: u16) -> bool {
    let address = format!("{HOST}:{}", KAFKA_PORT + id - 1);
    address.parse().is_ok_and(|a| TcpStream::connect_timeout(&a, Duration::from_secs(1)).is_ok())
}

/// The tools' Java command line, for people: `java -cp LIBS/* org.apache.kafka.tools.TopicCommand …`.
fn java(lab: &Lab<'_>) -> Command {
    let libs = lab.paths.artifact("kafka", KAFKA).join("libs").join("*");
    let mut command = run::sh("java -cp");
    command.arg(libs);
    command
}

fn write_properties(lab: &Lab<'_>, id: u16) -> Result<(std::path::PathBuf, String)> {
    let path = lab.paths.config().join(format!("kafka-{id}.properties"));
    let text = properties(id, &lab.paths.state.join("kafka").join(id.to_string()).display().to_string());
    write_atomic(&path, text.as_bytes())?;
    Ok((path, text))
}

fn properties(id: u16, data: &str) -> String {
    let (port, controller) = (KAFKA_PORT + id - 1, KAFKA_CONTROLLER_PORT + id - 1);
    let voters: Vec<_> = BROKERS.iter().map(|b| format!("{b}@{HOST}:{}", KAFKA_CONTROLLER_PORT + b - 1)).collect();
    format!(
        "process.roles=broker,controller
node.id={id}
controller.quorum.voters={}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller}
advertised.listeners=PLAINTEXT://{HOST}:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
offsets.topic.num.partitions=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
transaction.state.log.num.partitions=3
auto.create.topics.enable=false
unclean.leader.election.enable=false
num.partitions=6
num.network.threads=2
num.io.threads=4
log.segment.bytes=134217728
log.cleaner.dedupe.buffer.size=16777216
group.initial.rebalance.delay.ms=0
",
        voters.join(",")
    )
}

/// Writes the identity of each broker onto its empty disk, all at once: each takes a JVM.
fn format_disks(lab: &Lab<'_>) -> Result<()> {
    let mut children = Vec::new();
    for id in BROKERS {
        let data = lab.paths.state.join("kafka").join(id.to_string());
        if data.join("meta.properties").is_file() {
            continue;
        }
        fs::create_dir_all(&data)?;
        let (properties, _) = write_properties(lab, id)?;
        let mut command = java(lab);
        command.args([
            "-Xmx128m",
            "-XX:TieredStopAtLevel=1",
            "kafka.tools.StorageTool",
            "format",
            "-t",
            CLUSTER_ID,
            "-c",
        ]);
        command.arg(properties);
        children.push((id, std::thread::spawn(move || run::output(&mut command))));
    }
    for (id, child) in children {
        let formatted = child.join().map_err(|_| anyhow::anyhow!("formatting the disk of broker {id} panicked"))?;
        formatted.with_context(|| format!("cannot format the disk of Kafka broker {id}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_broker_has_ports_of_its_own_and_knows_all_controllers() {
        let text = properties(2, "/d");
        assert!(text.contains("listeners=PLAINTEXT://10.88.0.1:9093,CONTROLLER://10.88.0.1:9193\n"), "{text}");
        assert!(
            text.contains("controller.quorum.voters=1@10.88.0.1:9192,2@10.88.0.1:9193,3@10.88.0.1:9194\n"),
            "{text}"
        );
        assert!(text.contains("min.insync.replicas=2\n"));
    }
}
