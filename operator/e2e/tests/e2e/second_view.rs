//! A view that is not the product's own, `examples/json-events`, through a failover.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use kube::api::{DeleteParams, PostParams};
use tokio::time::Instant;
use understudy_api::v1alpha1::{Consumer, KafkaTopic, PartitionState};
use understudy_e2e::fault::Fault;
use understudy_e2e::sql::Account;
use understudy_e2e::stage::{self, Stage};
use understudy_e2e::wait::{Seen, until};
use understudy_e2e::{manifest, run, see, sql};
use understudy_kafka::{
    Admin, Connection, KafkaProducer, OutRecord, Produce, ProducerConfig, TopicSpec, dead_letter_topic,
};

const PARTITIONS: i32 = 2;
const SCHEMA: &str = "view_events";
const BATCH: usize = 50;

#[test]
fn a_view_of_a_teams_own_counts_each_event_once_through_a_failover() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let topic = format!("{}-events", stage.namespace.name());
        let connection = Connection::new(brokers()?, "understudy-e2e");
        let admin = Admin::new(&connection)?;
        for name in [topic.clone(), dead_letter_topic(&topic)] {
            let spec = TopicSpec::durable(name, PARTITIONS, 3, Duration::from_secs(3600));
            admin.ensure_topic(&spec, Duration::from_secs(30)).await?;
        }
        install(&stage, &topic).await?;
        let before = stage.shard().await?;
        let (old, epoch) = (see::primary(&before), see::epoch(&before));

        let producer = KafkaProducer::new(ProducerConfig::new(connection, &topic))?;
        let mut sent = Sent::default();
        sent.batches(&producer, 20).await?;
        Fault::Kill.inject(stage.cluster, &stage.namespace, &old).await?;
        while sent.more_until_promoted(&producer, &stage, epoch).await? {}
        sent.batches(&producer, 20).await?;

        until("the totals are those of the events sent", Duration::from_secs(60), async || {
            let stored = stored(&stage).await?;
            ensure!(stored.0 <= sent.events && stored.1 <= sent.amount, "more than was sent: {stored:?} of {sent:?}");
            let all = stored == (sent.events, sent.amount, sent.events);
            Ok(Seen::when(all, (), format!("{stored:?} of {sent:?}")))
        })
        .await?;
        stage.settled().await?;
        let after = stored(&stage).await?;
        ensure!(after == (sent.events, sent.amount, sent.events), "{after:?} of {sent:?} at the end");
        stage.namespace.api::<Consumer>().delete("events", &DeleteParams::default()).await?;
        Ok(())
    })
}

fn brokers() -> Result<String> {
    std::env::var("UNDERSTUDY_TEST_KAFKA")
        .context("UNDERSTUDY_TEST_KAFKA must name the brokers; `cargo lab test` sets it")
}

/// What was acknowledged by Kafka.
#[derive(Debug, Default)]
struct Sent {
    events: i64,
    amount: i64,
}

impl Sent {
    async fn batches(&mut self, producer: &KafkaProducer, count: usize) -> Result<()> {
        for _ in 0..count {
            let mut records = Vec::with_capacity(BATCH);
            let mut amount = 0;
            for index in 0..BATCH {
                amount += index as i64;
                records.push(OutRecord {
                    partition: Some(index as i32 % PARTITIONS),
                    key: Bytes::new(),
                    value: Bytes::from(format!("{{\"kind\":\"sale\",\"amount\":{index}}}")),
                    headers: Vec::new(),
                });
            }
            producer.send(records, Instant::now() + Duration::from_secs(20)).await?;
            self.events += BATCH as i64;
            self.amount += amount;
        }
        Ok(())
    }

    /// Sends a batch; false once the shard has another primary.
    async fn more_until_promoted(&mut self, producer: &KafkaProducer, stage: &Stage, epoch: i64) -> Result<bool> {
        ensure!(self.events < 1_000_000, "no promotion while a million events were sent");
        self.batches(producer, 1).await?;
        let shard = stage.shard().await?;
        Ok(see::epoch(&shard) == epoch || see::is_changing(&shard))
    }
}

async fn install(stage: &Stage, topic: &str) -> Result<()> {
    let mut consumer: Consumer = manifest::first(&manifest::folder("examples/json-events/consumer.yaml"), "Consumer")?;
    consumer.metadata.name = Some("events".into());
    consumer.spec.shards = Some(vec![stage.shard_name(0)]);
    consumer.spec.kafka = Some(KafkaTopic { bootstrap_servers: brokers()?, topic: topic.to_owned() });
    let view = consumer.spec.view.as_mut().context("the example has no view")?;
    view.schema = SCHEMA.into();
    view.image = std::env::var("UNDERSTUDY_VIEW_IMAGE")
        .context("UNDERSTUDY_VIEW_IMAGE must name the image of examples/json-events; `cargo lab test` sets it")?;
    stage.namespace.api::<Consumer>().create(&PostParams::default(), &consumer).await?;
    until("the view's partitions run", Duration::from_secs(90), async || {
        let status = stage.namespace.api::<Consumer>().get("events").await?.status.unwrap_or_default();
        let running = status.partitions.iter().filter(|p| p.state == PartitionState::Running).count();
        Ok(Seen::when(running == PARTITIONS as usize, (), format!("{:?} {:?}", status.message, status.partitions)))
    })
    .await
}

/// Events and amount by the running totals, and events by their rows, on the present primary.
async fn stored(stage: &Stage) -> Result<(i64, i64, i64)> {
    let primary = see::primary(&stage.shard().await?);
    let statement = format!(
        "SELECT (SELECT COALESCE(SUM(events), 0) FROM {SCHEMA}.total), (SELECT COALESCE(SUM(amount), 0) FROM {SCHEMA}.total), \
         (SELECT COUNT(*) FROM {SCHEMA}.event)"
    );
    let row = sql::ask(stage.cluster, &stage.namespace, (&stage.shard_name(0), &primary), Account::Reader, &statement)
        .await?;
    let numbers: Vec<i64> = row.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    match numbers[..] {
        [events, amount, rows] => Ok((events, amount, rows)),
        _ => anyhow::bail!("the totals are malformed: {row}"),
    }
}
