package pathinfo

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
)

// timeout ends a call whose context has no deadline of its own; it leaves the other side the time to dial.
const timeout = 10 * time.Second

// Look asks the node behind cc how it sees the caller, and with dial to dial the caller's addresses. ahead is by how much the
// node's clock is ahead of this one, give or take half a round trip; it is 0 when the node did not say its time. Texts that are
// too long are cut. cc must lead to one node. Without a deadline in ctx it gives up after 10 s.
func Look(ctx context.Context, cc grpc.ClientConnInterface, dial bool) (view View, ahead time.Duration, err error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	begin := time.Now()
	res, err := NewPathInfoServiceClient(cc).Look(ctx, &LookRequest{Dial: dial}, grpc.MaxCallRecvMsgSize(maxAnswer))
	if err != nil {
		return View{}, 0, fmt.Errorf("pathinfo: look: %w", err)
	}
	end := time.Now()
	view = View{
		Path: cut(res.GetPath()), Relay: cut(res.GetRelay()), Transport: cut(res.GetTransport()), SeenAt: cut(res.GetSeenAt()), NotDirect: cut(res.GetNotDirect()),
		Reachability: cut(res.GetReachability()), UDPMapping: cut(res.GetUdpMapping()), TCPMapping: cut(res.GetTcpMapping()),
	}
	if t := res.GetTime(); t.IsValid() {
		view.Time = t.AsTime()
		// The node's clock was read at the end of its work: a question without dials is answered halfway.
		at := begin.Add(end.Sub(begin) / 2)
		if dial {
			at = end
		}
		ahead = view.Time.Sub(at)
	}
	for _, d := range res.GetDialed()[:min(len(res.GetDialed()), MaxDialed)] {
		view.Dialed = append(view.Dialed, Met{Addr: cut(d.GetAddr()), Took: d.GetTook().AsDuration(), Err: cut(d.GetError())})
	}
	return view, ahead, nil
}
