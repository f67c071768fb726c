package fleet

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
)

// curve is one line of a chart.
type curve struct {
	name, colour string
	points       [][2]float64
}

// chart is a plot of curves over a logarithmic x axis.
type chart struct {
	title, x, y string
	curves      []curve
}

// Size of a chart and its margins, in pixels.
const (
	chartWidth, chartHeight = 640, 300
	marginLeft, marginRight = 70, 20
	marginTop, marginBottom = 50, 45
)

// Plot reads the reports of a series and draws what a reboot costs over the number of nodes.
func Plot(out string, reports []string) error {
	var series []Report
	for _, path := range reports {
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("reading a report: %w", err)
		}
		var r Report
		if err := json.Unmarshal(text, &r); err != nil {
			return fmt.Errorf("reading the report %q: %w", path, err)
		}
		series = append(series, r)
	}
	slices.SortFunc(series, func(a, b Report) int { return cmp.Compare(a.Nodes, b.Nodes) })
	if err := os.WriteFile(out, []byte(draw(charts(series)...)), 0o644); err != nil {
		return fmt.Errorf("writing the plot: %w", err)
	}
	return nil
}

// charts are those of docs/fleet.svg.
func charts(series []Report) []chart {
	over := func(value func(Report) float64) (points [][2]float64) {
		for _, r := range series {
			points = append(points, [2]float64{float64(r.Nodes), value(r)})
		}
		return points
	}
	return []chart{
		{"API requests a reboot", "nodes", "requests", []curve{
			{"all agents, the marshal included", "#1f77b4", over(func(r Report) float64 { return r.PerReboot() })},
			{"of that the marshal", "#ff7f0e", over(func(r Report) float64 { return float64(r.Rollout.Orders.Total) / float64(max(1, r.Reboots)) })},
		}},
		{"Processor time a reboot", "nodes", "ms", []curve{
			{"API server and etcd", "#1f77b4", over(func(r Report) float64 { return r.ServerTime().Seconds() * 1000 })},
			{"marshal", "#ff7f0e", over(func(r Report) float64 {
				return r.Rollout.Marshal.Cores * r.Rollout.Seconds / float64(max(1, r.Reboots)) * 1000
			})},
		}},
		{"Memory of the marshal, at most", "nodes", "MiB", []curve{
			{"RSS", "#1f77b4", over(func(r Report) float64 { return float64(r.Rollout.Marshal.Peak) / (1 << 20) })},
		}},
	}
}

// draw writes the charts below one another, as SVG.
func draw(all ...chart) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n",
		chartWidth, chartHeight*len(all))
	b.WriteString(`<rect width="100%" height="100%" fill="white"/>` + "\n")
	for i, c := range all {
		fmt.Fprintf(&b, `<g transform="translate(0,%d)">`+"\n", i*chartHeight)
		c.draw(&b)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (c chart) draw(b *strings.Builder) {
	minX, maxX, maxY := math.Inf(1), 1.0, 0.0
	for _, l := range c.curves {
		for _, p := range l.points {
			minX, maxX, maxY = min(minX, p[0]), max(maxX, p[0]), max(maxY, p[1])
		}
	}
	step := niceStep(maxY)
	top := math.Max(step, math.Ceil(maxY/step)*step)
	const width, height = chartWidth - marginLeft - marginRight, chartHeight - marginTop - marginBottom
	x := func(v float64) float64 {
		if maxX <= minX {
			return marginLeft + width/2
		}
		return marginLeft + width*(math.Log(v)-math.Log(minX))/(math.Log(maxX)-math.Log(minX))
	}
	y := func(v float64) float64 { return marginTop + height*(1-max(0, v)/top) }
	text := func(px, py float64, anchor, s string) {
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", px, py, anchor, s)
	}
	line := func(x1, y1, x2, y2 float64, colour string) {
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>`+"\n", x1, y1, x2, y2, colour)
	}
	fmt.Fprintf(b, `<text x="%d" y="18" font-size="14" font-weight="bold">%s</text>`+"\n", marginLeft, c.title)
	for v := 0.0; v <= top+step/2; v += step {
		line(marginLeft, y(v), chartWidth-marginRight, y(v), "#dddddd")
		text(marginLeft-8, y(v)+4, "end", fmt.Sprintf("%g", v))
	}
	line(marginLeft, y(0), chartWidth-marginRight, y(0), "black")
	line(marginLeft, y(0), marginLeft, y(top), "black")
	text(marginLeft-8, marginTop-14, "end", c.y)
	text(chartWidth-marginRight, chartHeight-8, "end", c.x)
	seen := map[float64]bool{}
	for i, l := range c.curves {
		var path []string
		for _, p := range l.points {
			path = append(path, fmt.Sprintf("%.1f,%.1f", x(p[0]), y(p[1])))
			fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x(p[0]), y(p[1]), l.colour)
			text(x(p[0]), y(p[1])-8, "middle", fmt.Sprintf("%.3g", p[1]))
			if !seen[p[0]] {
				seen[p[0]] = true
				line(x(p[0]), y(0), x(p[0]), y(0)+5, "black")
				text(x(p[0]), y(0)+18, "middle", fmt.Sprintf("%g", p[0]))
			}
		}
		fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(path, " "), l.colour)
		at := float64(marginLeft + 200*i)
		line(at, 32, at+20, 32, l.colour)
		text(at+26, 36, "start", l.name)
	}
}

// niceStep divides the axis into about five parts of a round size.
func niceStep(top float64) float64 {
	if top <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(top/5)))
	for _, f := range []float64{1, 2, 5} {
		if top/(f*power) <= 5 {
			return f * power
		}
	}
	return 10 * power
}
