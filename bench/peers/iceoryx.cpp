/* iceoryx.cpp - iceoryx publish-subscribe, its daemon RouDi in this process, which saves starting one for each run. A subscriber
 * holds 256 rows at most, whatever the capacity asked for. */
#include "../bench.h"
#include "iceoryx_hoofs/log/logmanager.hpp"
#include "iceoryx_posh/internal/roudi/roudi.hpp"
#include "iceoryx_posh/popo/publisher.hpp"
#include "iceoryx_posh/popo/subscriber.hpp"
#include "iceoryx_posh/roudi/iceoryx_roudi_components.hpp"
#include "iceoryx_posh/runtime/posh_runtime_single_process.hpp"
#include <new>

typedef iox::popo::Publisher<row> publisher;
typedef iox::popo::Subscriber<row> subscriber;
struct shared { bool lossless; int channel; };
struct producer { publisher *to; };
struct consumer { subscriber *from; uint64_t next, lost; };
#define CAN_WRITE
#define CAN_STREAM
#define CAN_READERS
#define ROW_BY_ROW

static void start_daemon(void)
{
    iox::log::LogManager::GetLogManager().SetDefaultLogLevel(iox::log::LogLevel::kOff, iox::log::LogLevelOutput::kHideLogLevel);
    iox::RouDiConfig_t config;
    iox::mepoo::MePooConfig pool;
    pool.addMemPool({ 128, 8192 });
    config.m_sharedMemorySegments.push_back({ iox::posix::PosixGroup::getGroupOfCurrentProcess().getName(),
        iox::posix::PosixGroup::getGroupOfCurrentProcess().getName(), pool });
    static iox::roudi::IceOryxRouDiComponents components(config);
    static iox::roudi::RouDi daemon(components.rouDiMemoryManager, components.portManager,
        iox::roudi::RouDi::RoudiStartupParameters(iox::roudi::MonitoringMode::OFF, false));
    static iox::runtime::PoshRuntimeSingleProcess runtime("cbuf_bench");
}
static iox::capro::ServiceDescription service(const struct shared *s)
{
    return s->channel ? iox::capro::ServiceDescription("bench", "row", "back") : iox::capro::ServiceDescription("bench", "row", "there");
}
static void shared_open(struct shared *s, const struct setup *o, int channel)
{
    setup.capacity = 256;
    s->lossless = o->lossless || !strcmp(o->shape, "pingpong"), s->channel = channel;
    if (!channel) start_daemon();
}
static void producer_open(struct producer *p, struct shared *s)
{
    iox::popo::PublisherOptions options;
    if (s->lossless) options.subscriberTooSlowPolicy = iox::popo::ConsumerTooSlowPolicy::WAIT_FOR_CONSUMER;
    p->to = new publisher(service(s), options);
}
static void consumer_open(struct consumer *c, struct shared *s)
{
    iox::popo::SubscriberOptions options;
    if (s->lossless) options.queueFullPolicy = iox::popo::QueueFullPolicy::BLOCK_PRODUCER;
    c->from = new subscriber(service(s), options);
    while (c->from->getSubscriptionState() != iox::SubscribeState::SUBSCRIBED) sched_yield();
}
static void producer_close(struct producer *) {}
static void consumer_close(struct consumer *) {}
static void shared_close(struct shared *) {}

INLINE int push(struct producer *p, const row *rows, int)
{
    int sent = 0;
    p->to->loan().and_then([&](iox::popo::Sample<row> &sample) { *sample = *rows, sample.publish(), sent = 1; });
    return sent;
}
INLINE int pop(struct consumer *c, row *rows, int)
{
    int got = 0;
    c->from->take().and_then([&](const iox::popo::Sample<const row> &sample) { *rows = *sample, got = 1; });
    return got;
}
/* After the report: its destructors take a second. */
static void leave(void)
{
    char rows[128];
    snprintf(rows, sizeof rows, "/dev/shm/%s", iox::posix::PosixGroup::getGroupOfCurrentProcess().getName().c_str());
    unlink(rows), unlink("/dev/shm/iceoryx_mgmt"), unlink("/tmp/roudi"), unlink("/tmp/cbuf_bench"), unlink("/tmp/cbuf_bench.lock");
    unlink("/tmp/roudi.lock"), unlink("/tmp/iox-unique-roudi.lock");
    fflush(stdout), _exit(0);
}
#define LEAVE leave()
#include "../main.h"
