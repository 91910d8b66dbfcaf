package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lynn9388/p2p/cmd/p2p/internal/control"
	"github.com/lynn9388/p2p/cmd/p2p/internal/dyncall"
	"github.com/lynn9388/p2p/cmd/p2p/internal/output"
)

// fanOut is how many instances are called at once.
const fanOut = 32

// resultJSON is one answer of one instance in JSON, or why it failed.
type resultJSON struct {
	senderJSON
	Answer json.RawMessage `json:"answer,omitempty"`
	Code   string          `json:"code,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// result is an answer of an instance, or the end of the call at it.
type result struct {
	from   senderJSON
	answer []byte // nil at the end
	err    error  // of the end
}

// callOne calls one instance, and hands over each answer.
type callOne func(ctx context.Context, target string, answer func(doc []byte) error) error

// callAll calls a method of every instance, and prints what comes as it comes.
func (a *app) callAll(ctx context.Context, service, method string, in io.Reader, opts callOptions) error {
	out, err := a.printer()
	if err != nil {
		return err
	}
	data, err := io.ReadAll(in) // each instance gets all of it
	if err != nil {
		return err
	}
	return a.withNode(ctx, func(c control.ControlServiceClient, conn *grpc.ClientConn) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		results := make(chan result)
		searched := make(chan error, 1)
		go func() {
			defer close(results)
			req := &control.FindInstancesRequest{Service: service, Tags: opts.tags, Search: control.Search_SEARCH_ALL, AskHealth: true}
			searched <- callEach(ctx, c, req, results, func(ctx context.Context, target string, answer func([]byte) error) error {
				m, err := dyncall.Find(ctx, conn, service, method)
				if err != nil {
					return describeFailure(target, service, err)
				}
				return m.Call(ctx, conn, bytes.NewReader(data), dyncall.Answers{Message: answer})
			})
		}()
		count, err := printResults(out, results)
		cancel()
		for range results { // those that still call end before the connection does
		}
		if searchErr := <-searched; err == nil && (count == 0 || status.Code(searchErr) != codes.DeadlineExceeded) {
			return searchErr // the search may well take longer than the calls
		}
		return err
	})
}

// callEach calls the instances as they are found, and returns when all have ended. Who is not serving is not called.
func callEach(ctx context.Context, c control.ControlServiceClient, req *control.FindInstancesRequest, results chan<- result, call callOne) error {
	var calls sync.WaitGroup
	defer calls.Wait()
	slots := make(chan struct{}, fanOut)
	return eachInstance(ctx, c, req, func(i *control.Instance) error {
		from := senderOf(i.GetPeer())
		if i.GetHealth() == notServing {
			results <- result{from: from, err: status.Error(codes.Unavailable, "it says that it is not serving")}
			return nil
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			results <- result{from: from, err: status.FromContextError(ctx.Err()).Err()}
			return nil
		}
		calls.Go(func() {
			defer func() { <-slots }()
			err := call(control.WithTarget(ctx, from.ID), from.ID, func(doc []byte) error {
				results <- result{from: from, answer: doc}
				return nil
			})
			results <- result{from: from, err: err}
		})
		return nil
	})
}

// printResults prints answers and failures, and returns how many instances there were.
func printResults(out *output.Printer, results <-chan result) (instances int, err error) {
	failed := 0
	for r := range results {
		if r.answer == nil {
			instances++
		}
		if r.err != nil {
			failed++
		}
		if err := printResult(out, r); err != nil {
			return instances, err
		}
	}
	if failed > 0 {
		return instances, fmt.Errorf("%d of %s failed", failed, count(int64(instances), "instance"))
	}
	return instances, nil
}

func printResult(out *output.Printer, r result) error {
	if bad, ok := errors.AsType[*dyncall.InputError](r.err); ok {
		return &usageError{bad} // the same at all instances
	}
	v := resultJSON{senderJSON: r.from}
	switch {
	case r.answer != nil:
		var doc bytes.Buffer
		if err := json.Compact(&doc, r.answer); err != nil {
			return err
		}
		v.Answer = doc.Bytes()
		return out.Text(v, doc.String(), "%s  ", r.from.text())
	case r.err != nil:
		st := status.Convert(r.err)
		v.Code, v.Error = st.Code().String(), st.Message()
		return out.Text(v, v.Code+": "+v.Error, "%s  failed: ", r.from.text())
	default:
		return nil
	}
}
