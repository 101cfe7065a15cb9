/* In place of NVIDIA's header, of which GeNN's code uses nothing. */
