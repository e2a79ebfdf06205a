// The lecture's chain in C++: one weight's gradient, and an ensemble's smallest, where no double holds it.
//
//     c++ main.cpp $(python -m fastgrad --cflags) -o chain && ./chain
//     c++ main.cpp $(pkg-config --cflags fastgrad) -o chain && ./chain
//     cmake -B build -Dfastgrad_DIR=$(python -m fastgrad --cmakedir) && cmake --build build && build/chain
#include <cstdio>
#include <fastgrad/fastgrad.h>

int main() {
    // Every preactivation is 0, where the sigmoid's slope is 1/4, the most that it can be.
    const auto lecture = fastgrad::backprop({500, 500, 400}, {-100000, -250, -200}, {200}, {150});
    std::printf("dloss/dw11 = %.17g\n", lecture.weight[0].to_double());

    const std::vector<double> weight(10000, 4.0), bias(10000, -1.5);
    const auto deep = fastgrad::backprop(weight, bias, {0.3}, {1});
    std::printf("10000 links: dloss/dx = 10^%.6f\n", deep.x[0].log10());
}
