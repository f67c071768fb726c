package observe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/kubernetes/scheme"

	"kubebaton.io/baton/lab/cluster"
)

// Where the API server keeps what is watched.
const (
	etcdNodes = "/registry/minions/"
	etcdSlots = "/registry/leases/" + Namespace + "/"
)

// StartBehind is Start, behind the API server's back: it watches etcd. An API server that was killed forgets what came
// before, and refuses to go on with a watch from then; etcd goes on exactly where it was, also when it was killed itself.
func StartBehind(ctx context.Context, c *cluster.Cluster) (*Observer, error) {
	ctx, cancel := context.WithCancel(ctx)
	o := newObserver(cancel)
	etcd, err := dialEtcd(ctx, c)
	if err != nil {
		o.Stop()
		return nil, fmt.Errorf("starting the observer: %w", err)
	}
	o.done.Go(func() {
		<-ctx.Done()
		_ = etcd.Close() // it was read from only
	})
	from := int64(0)
	for _, prefix := range []string{etcdNodes, etcdSlots} {
		got, err := etcd.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(from))
		for i := 0; err == nil && i < len(got.Kvs); i++ {
			err = o.takeStored(got.Kvs[i], got.Kvs[i].ModRevision, true)
		}
		if err != nil {
			o.Stop()
			return nil, fmt.Errorf("starting the observer: reading %s from etcd: %w", prefix, err)
		}
		from = got.Header.Revision
	}
	for _, prefix := range []string{etcdNodes, etcdSlots} {
		versions := etcd.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(from+1), clientv3.WithPrevKV())
		o.done.Go(func() { o.followStored(ctx, prefix, versions) })
	}
	return o, nil
}

func dialEtcd(ctx context.Context, c *cluster.Cluster) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Context: ctx, Logger: zap.NewNop(), Endpoints: []string{cluster.EtcdURL}, DialTimeout: 10 * time.Second,
		DialOptions: []grpc.DialOption{
			grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return c.Dial(ctx, "tcp", address) }),
			// An etcd that was killed is back within seconds: it is not waited for any longer.
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, MaxDelay: 500 * time.Millisecond}, MinConnectTimeout: time.Second,
			}),
		},
	})
}

func (o *Observer) followStored(ctx context.Context, prefix string, versions clientv3.WatchChan) {
	for r := range versions {
		if err := r.Err(); err != nil && ctx.Err() == nil {
			o.fault(fmt.Sprintf("the watch of %s lost something: %v", prefix, err))
		}
		for _, e := range r.Events {
			kv, exists := e.Kv, e.Type == mvccpb.PUT
			if !exists {
				kv = e.PrevKv
			}
			if err := o.takeStored(kv, e.Kv.ModRevision, exists); err != nil {
				o.fault(fmt.Sprintf("the watch of %s lost something: %v", prefix, err))
			}
		}
	}
	if ctx.Err() == nil {
		o.fault("the watch of " + prefix + " ended")
	}
}

func (o *Observer) takeStored(kv *mvccpb.KeyValue, revision int64, exists bool) error {
	if kv == nil {
		return errors.New("a deletion does not say of what")
	}
	object, _, err := scheme.Codecs.UniversalDeserializer().Decode(kv.Value, nil, nil)
	if err != nil {
		return fmt.Errorf("decoding %s: %w", kv.Key, err)
	}
	m, err := meta.Accessor(object)
	if err != nil {
		return fmt.Errorf("reading %s: %w", kv.Key, err)
	}
	m.SetResourceVersion(strconv.FormatInt(revision, 10)) // as the API server does, which stores none
	return o.takeVersion(object, exists)
}
